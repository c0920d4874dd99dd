# SPDX-License-Identifier: Apache-2.0
"""ELF files: sections, symbols, and where in the file an address is.

Reads 64-bit little-endian files as the System V ABI's "Object Files" chapter and LSB's
"Symbol Versioning" describe them, with pread, not mapped: a file that shrinks meanwhile must
not kill.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from probes import kernel
from probes.base import ProbeError
from probes.near import quote

_MACHINES = {"x86_64": 62, "arm64": 183}
_MACHINE_NAMES = {
    3: "32-bit x86",
    40: "32-bit Arm",
    62: "x86_64",
    183: "arm64",
    243: "RISC-V",
    21: "PowerPC",
    22: "s390",
    258: "LoongArch",
}
MOST = 1 << 30
"""Most bytes of a section; a bigger symbol table is a damaged or a hostile one."""
_PT_LOAD, _ET_REL = 1, 1
SYMTAB, _NOTE, _NOBITS, _DYNSYM, _VERSYM = 2, 7, 8, 11, 0x6FFFFFFF
_HIDDEN = 0x8000


class Section(NamedTuple):
    """A section: type (SHT_*), address, place in the file, linked section's number."""

    name: str
    kind: int
    address: int
    offset: int
    size: int
    link: int


class Symbol(NamedTuple):
    """An entry of a symbol table; `default` is what a program without a version gets."""

    name: str
    kind: int
    address: int
    size: int
    defined: bool
    default: bool


class Elf:
    """An open ELF file; a context manager. Raises ProbeError for what is none that runs here."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = _open(path)
        try:
            self._read_headers()
        except struct.error as error:
            self.close()
            raise ProbeError(f"{quote(path)} is damaged", "name an intact file") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Elf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _read_headers(self) -> None:
        self._size = os.fstat(self._fd).st_size
        head = os.pread(self._fd, 64, 0)
        _check(self.path, head)
        self.kind, self.machine = struct.unpack_from("<2H", head, 16)
        segments, sections = struct.unpack_from("<2Q", head, 32)
        size, count, width, number, names = struct.unpack_from("<5H", head, 54)
        table = self._read(size * count, segments)
        rows = [struct.unpack_from("<2I4Q", table, at * size) for at in range(count)]
        # Address, file offset and size in the file of what is loaded.
        self.segments: list[tuple[int, int, int]] = [
            (r[3], r[2], r[5]) for r in rows if r[0] == _PT_LOAD
        ]
        first = self._read(64, sections) if sections else bytes(64)
        # More sections than 16 bits count are counted in the first one.
        number = number or struct.unpack_from("<Q", first, 32)[0]
        names = names if names != 0xFFFF else struct.unpack_from("<I", first, 40)[0]
        if not sections or width < 64 or width * number > self._size:
            self.sections: list[Section] = []
            return
        table = self._read(width * number, sections)
        raw = [struct.unpack_from("<2I4QI", table, at * width) for at in range(number)]
        unnamed = [Section("", r[1], r[3], r[4], r[5], r[6]) for r in raw]
        text = self.data(unnamed[names]) if names < number else b""
        self.sections = [
            s._replace(name=_string(text, r[0])) for r, s in zip(raw, unnamed, strict=True)
        ]

    def section(self, name: str) -> Section | None:
        """The first section of that name."""
        return next((s for s in self.sections if s.name == name), None)

    def data(self, section: Section | None) -> bytes:
        """What a section holds; nothing for None and for one that is not in the file."""
        if section is None or section.kind == _NOBITS:
            return b""
        return self._read(section.size, section.offset)

    def _read(self, size: int, offset: int) -> bytes:
        """Bytes of the file; raises ProbeError where it cannot have them."""
        if size > min(self._size, MOST) or offset > self._size:
            why = f"{quote(self.path)} is damaged: it names what is behind its end"
            raise ProbeError(why, "name an intact file")
        return os.pread(self._fd, size, offset)

    def offset(self, address: int) -> int | None:
        """The file offset of an address; None for one that is not loaded from the file."""
        for start, offset, size in self.segments:
            if start <= address < start + size:
                return address - start + offset
        return None

    def symbols(self) -> Iterator[Symbol]:
        """Entries of .symtab, then of .dynsym."""
        for kind in (SYMTAB, _DYNSYM):
            for section in self.sections:
                if section.kind == kind and section.link < len(self.sections):
                    yield from self._table(section)

    def _table(self, section: Section) -> Iterator[Symbol]:
        table, strings = self.data(section), self.data(self.sections[section.link])
        versions = b""
        if section.kind == _DYNSYM:
            versions = next((self.data(s) for s in self.sections if s.kind == _VERSYM), b"")
        count = len(table) // 24
        hidden = [v[0] & _HIDDEN for v in struct.iter_unpack("<H", versions[: len(versions) & ~1])]
        hidden += [0] * (count - len(hidden))
        rows = struct.iter_unpack("<IBBHQQ", table[: count * 24])
        end = strings.find
        for old, (at, info, _, section_number, address, size) in zip(hidden, rows, strict=False):
            name = strings[at : end(b"\0", at)].decode("utf-8", "surrogateescape")
            if "@" in name:
                # A linker's symbol@VERSION is an old one, symbol@@VERSION the default.
                name, _, version = name.partition("@")
                old = not version.startswith("@")
            # Local symbols (binding 0) and old versions give way to others of that name.
            default = not old and info >= 16
            yield Symbol(name, info & 15, address, size, section_number != 0, default)

    def build_id(self) -> bytes:
        """The build id, empty if there is none."""
        note = self.data(self.section(".note.gnu.build-id"))
        return note[16:] if note[12:16] == b"GNU\0" else b""


def _open(path: str) -> int:
    try:
        # A FIFO would block, a terminal would become ours.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ProbeError(f"there is no file {quote(path)}", "check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ProbeError(f"{quote(path)} cannot be read ({reason})", "check the path") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ProbeError(f"{quote(path)} is no regular file", "name a program or a library")
    return fd


def _check(path: str, head: bytes) -> None:
    """Raises ProbeError unless this is the beginning of an ELF file for this machine."""
    if head[:2] == b"#!":
        interpreter = head[2:].split()[0].decode(errors="replace") if head[2:].split() else ""
        raise ProbeError(
            f"{quote(path)} is a script, not an ELF file",
            f"trace its interpreter {quote(interpreter)}",
        )
    if head[:4] != b"\x7fELF" or len(head) < 20:
        raise ProbeError(f"{quote(path)} is not an ELF file", "name a program or a library")
    order = "<" if head[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "2H", head, 16)
    here = kernel.arch()
    name = _MACHINE_NAMES.get(machine, f"machine {machine}")
    if head[4] != 2:
        raise ProbeError(
            f"{quote(path)} is a 32-bit ELF file ({name}), and only 64-bit programs are timed",
            "name the 64-bit file",
        )
    if head[5] != 1 or (here and machine != _MACHINES[here]):
        why = f"{quote(path)} is for {name}, and this machine is {kernel.machine()}"
        raise ProbeError(why, "name a file that runs here")
    if kind == _ET_REL:
        raise ProbeError(
            f"{quote(path)} is an object file or kernel module, which no process runs",
            "name a program or a library, or a kernel function (func:)",
        )


def _string(strings: bytes, at: int) -> str:
    return strings[at : strings.find(b"\0", at)].decode("utf-8", "replace")
