# SPDX-License-Identifier: Apache-2.0
"""Writes small ELF files, so that tests need no compiler and know every offset."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from probes.core import kernel

FUNC, OBJECT, IFUNC = 2, 1, 10
LOCAL, GLOBAL = 0, 1
ADDRESS = 0x400000
CODE_AT = 0x1000
"""The code lies at this file offset and is loaded at ADDRESS + CODE_AT + MOVED."""
MOVED = 0x2000
DATA = 0x600000
"""Where the writable segment is loaded: reference counters, then as many bytes of other data."""
Row = tuple[str, int, int, int | None, int]
"""A symbol: name, type, binding, place in the code or None where it is imported, size."""
NOP = b"\x1f\x20\x03\xd5" if kernel.arch() == "arm64" else b"\x90"
"""What the code is filled with: where a static probe is, there must be one."""
MACHINE = {"x86_64": 62, "arm64": 183}.get(kernel.arch() or "", 62)


@dataclass
class ElfFile:
    """What goes into a file."""

    symtab: list[Row] = field(default_factory=list)
    dynsym: list[Row] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    build_id: bytes = b""
    notes: bytes = b""
    debuglink: str = ""
    debugdata: bytes = b""
    extra: list[str] = field(default_factory=list)
    tables: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    needed: list[str] = field(default_factory=list)
    soname: str = ""
    bits: int = 2
    machine: int = MACHINE
    kind: int = 3
    code: bytes = b""
    counters: int = 0

    def build(self) -> bytes:
        """The bytes of the file."""
        sections: list[tuple[str, int, bytes, int]] = [("", 0, b"", 0)]
        for name, kind, symbols in ((".symtab", 2, self.symtab), (".dynsym", 11, self.dynsym)):
            if symbols:
                table, strings = _symbols(symbols)
                sections.append((name, kind, table, len(sections) + 1))
                sections.append((".strtab", 3, strings, 0))
        if self.versions:
            data = struct.pack(f"<{len(self.versions) + 1}H", 0, *self.versions)
            sections.append((".gnu.version", 0x6FFFFFFF, data, 0))
        if self.build_id:
            note = struct.pack("<3I4s", 4, len(self.build_id), 3, b"GNU\0") + self.build_id
            sections.append((".note.gnu.build-id", 7, note, 0))
        if self.notes:
            sections.append((".note.stapsdt", 7, self.notes, 0))
        if self.counters:
            sections.append((".probes", 1, bytes(self.counters), 0))
            sections.append((".data", 1, bytes(self.counters), 0))
        if self.debuglink:
            sections.append((".gnu_debuglink", 1, self.debuglink.encode() + b"\0" * 8, 0))
        if self.debugdata:
            sections.append((".gnu_debugdata", 1, self.debugdata, 0))
        sections += [(name, 1, b"x", 0) for name in self.extra]
        sections += [(name, 1, data, 0) for name, (_, data) in self.tables.items()]
        if self.needed or self.soname:
            words = [(1, one) for one in self.needed] + [(14, self.soname)] * bool(self.soname)
            strings = b"\0" + b"".join(text.encode() + b"\0" for _, text in words)
            places = [(tag, strings.find(b"\0" + text.encode() + b"\0") + 1) for tag, text in words]
            table = b"".join(struct.pack("<2Q", *one) for one in places)
            sections.append((".dynamic", 6, table, len(sections) + 1))
            sections.append((".dynstr", 3, strings, 0))
        return self._assemble(sections)

    def _assemble(self, sections: list[tuple[str, int, bytes, int]]) -> bytes:
        names = b"\0" + b"".join(name.encode() + b"\0" for name, _, _, _ in sections[1:])
        sections = [*sections, ("", 3, names + b"\0", 0)]
        code = (self.code + NOP * 0x1000)[:0x1000]
        body = bytes(CODE_AT - 64 - (112 if self.counters else 56)) + code
        writable = b""
        headers, at = b"", CODE_AT + len(code)
        for name, kind, data, link in sections:
            offset = names.find(b"\0" + name.encode() + b"\0") + 1 if name else 0
            if name == ".probes":
                size = 2 * self.counters
                writable = struct.pack("<2I6Q", 1, 6, at, DATA, DATA, size, size, 1)
            address = DATA if name == ".probes" else self.tables.get(name, (0, b""))[0]
            row = (offset, kind, 0, address, at if data else 0, len(data), link, 0, 1, 0)
            headers += struct.pack("<2I4Q2I2Q", *row)
            body += data
            at += len(data)
        ident = b"\x7fELF" + bytes([self.bits, 1, 1]) + bytes(9)
        table = (len(sections), len(sections) - 1)
        head = struct.pack(
            "<2HI3QI6H",
            self.kind,
            self.machine,
            1,
            0,
            64,
            at,
            0,
            64,
            56,
            1 + bool(writable),
            64,
            *table,
        )
        load = ADDRESS + CODE_AT + MOVED
        segment = struct.pack("<2I6Q", 1, 5, CODE_AT, load, load, len(code), len(code), 0x1000)
        return ident + head + segment + writable + body + headers


def _symbols(symbols: list[Row]) -> tuple[bytes, bytes]:
    table, strings = bytes(24), b"\0"
    for name, kind, binding, place, size in symbols:
        section = 0 if place is None else 1
        address = 0 if place is None else ADDRESS + CODE_AT + MOVED + place
        info = binding << 4 | kind
        table += struct.pack("<IBBHQQ", len(strings), info, 0, section, address, size)
        strings += name.encode() + b"\0"
    return table, strings


def usdt_note(provider: str, name: str, place: int, arguments: str = "", counter: int = 0) -> bytes:
    """A note of .note.stapsdt about a probe at a code offset; `counter` is an address or 0."""
    address = ADDRESS + CODE_AT + MOVED + place
    text = b"\0".join(part.encode() for part in (provider, name, arguments)) + b"\0"
    data = struct.pack("<3Q", address, 0, counter) + text
    padded = data + bytes(-len(data) % 4)
    return struct.pack("<3I8s", 8, len(data), 3, b"stapsdt\0") + padded
