# SPDX-License-Identifier: Apache-2.0
"""Where the stack pointer of a function is, from the unwind tables of its ELF file.

Reads .eh_frame by the search table of .eh_frame_hdr, as the Linux Standard Base's "Exception
Frames" and DWARF's "Call Frame Information" describe them. The file is taken to be hostile: each
table is read within its section, and what is not understood is unknown.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from probes.host.file_access import check_time
from probes.symbols.elf import Elf

MOST_TABLES = 64 << 20
"""Bytes of the largest table that is read."""
MOST_STEPS = 20_000
"""Most instructions that the rows of one function may take."""
_X86, _ARM = 62, 183
_AT_ENTRY = {_X86: (7, 8), _ARM: (31, 0)}
"""Where a caller's frame ends when a function begins, by machine: a register and bytes above it."""
_PCREL_SDATA4, _UDATA4, _DATAREL_SDATA4 = 0x1B, 0x03, 0x3B
_WIDTHS = {0x00: 8, 0x02: 2, 0x03: 4, 0x04: 8, 0x0A: 2, 0x0B: 4, 0x0C: 8}
_ADVANCE, _OFFSET, _RESTORE = 1, 2, 3
_NOP, _ADVANCE1, _ADVANCE2, _ADVANCE4, _REMEMBER, _BACK = 0x00, 0x02, 0x03, 0x04, 0x0A, 0x0B
_CFA, _CFA_REGISTER, _CFA_OFFSET, _CFA_EXPRESSION = 0x0C, 0x0D, 0x0E, 0x0F
_CFA_SF, _CFA_OFFSET_SF = 0x12, 0x13
_ONE = (0x06, 0x07, 0x08, 0x2E)
_TWO = (0x05, 0x09, 0x11, 0x14, 0x15, 0x2F)
_NONE = (_NOP, 0x2D)
_BLOCK = (0x10, 0x16)


class Frame(NamedTuple):
    """The tables' entry for some code: its address and size in bytes, and its rows.

    A row is an address and whether the stack pointer is there as when the function was called.
    """

    address: int
    size: int
    rows: tuple[tuple[int, bool], ...]

    @property
    def begins_called(self) -> bool:
        """Whether the stack is as after a call where it begins: not in a part that is jumped to."""
        return self.rows[0][1]

    def as_called(self, address: int) -> bool:
        """Whether the stack pointer at an address is that of the function's beginning."""
        found = self.rows[0][1]
        for at, called in self.rows:
            if at > address:
                break
            found = called
        return found


class _Reader:
    """Numbers of a table, one after the other; raises ValueError behind the end."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, min(end, len(data))

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > self.end:
            raise ValueError("a table is cut off")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def text(self) -> bytes:
        end = self.data.find(b"\0", self.at, self.end)
        if end < 0:
            raise ValueError("a text has no end")
        return self.take(end + 1 - self.at)[:-1]

    def uleb(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value
            if shift > 63:
                raise ValueError("a number is too long")

    def sleb(self) -> int:
        start = self.at
        value = self.uleb()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> (bits - 1) & 1 else value


class UnwindTables:
    """The unwind tables of an open ELF file; raises ProbeError as its Elf does."""

    def __init__(self, elf: Elf) -> None:
        self._at_entry = _AT_ENTRY.get(elf.machine)
        frames, search = elf.section(".eh_frame"), elf.section(".eh_frame_hdr")
        self._data = elf.data(frames, MOST_TABLES)
        self._address = frames.address if frames else 0
        table = elf.data(search, MOST_TABLES)
        self._base = search.address if search else 0
        self._search = table[12:] if table[:4] == b"\x01\x1b\x03\x3b" else b""

    def frame(self, address: int) -> Frame | None:
        """The entry that covers an address; None where there is none that is understood."""
        at = self._place(address)
        if at is None or self._at_entry is None:
            return None
        try:
            found = self._entry(at - self._address)
        except (ValueError, KeyError):
            return None
        return found if found.address <= address < found.address + found.size else None

    def _place(self, address: int) -> int | None:
        """The address of the entry that the search table has for an address."""
        low, high = 0, len(self._search) // 8
        while low < high:
            middle = (low + high) // 2
            (start,) = struct.unpack_from("<i", self._search, 8 * middle)
            if self._base + start <= address:
                low = middle + 1
            else:
                high = middle
        if not low:
            return None
        (entry,) = struct.unpack_from("<i", self._search, 8 * low - 4)
        return int(self._base + entry)

    def _record(self, at: int) -> tuple[_Reader, int, int]:
        """What is behind an entry's length and number, the number, and where that is."""
        if at < 0:
            raise ValueError("before the table")
        head = _Reader(self._data, at, len(self._data))
        size = head.number(4)
        if size in (0, 0xFFFFFFFF):
            raise ValueError("no entry of a usual size")
        number_at = head.at
        number = head.number(4)
        return _Reader(self._data, head.at, number_at + size), number, number_at

    def _entry(self, at: int) -> Frame:
        body, back, number_at = self._record(at)
        if not back:
            raise ValueError("no function's entry")
        common = _Common(self._record(number_at - back)[0])
        start = self._pointer(body, common.encoding)
        size = body.number(_WIDTHS[common.encoding & 0x0F])
        body.take(body.uleb())
        rows = _Rows(common, start, self._at_entry or (0, 0))
        rows.run(common.program())
        rows.begin()
        rows.run(body)
        return Frame(start, size, rows.found())

    def _pointer(self, body: _Reader, encoding: int) -> int:
        """An address, absolute or counted from its own place."""
        place = self._address + body.at
        value = body.number(_WIDTHS[encoding & 0x0F], bool(encoding & 0x08))
        if encoding & 0xF0 not in (0x00, 0x10):
            raise ValueError("an address of an unknown kind")
        return (place + value if encoding & 0x10 else value) & (1 << 64) - 1


class _Common:
    """What many functions share (a CIE): how numbers are written, and the first rows."""

    def __init__(self, body: _Reader) -> None:
        version = body.number(1)
        text = body.text()
        if version not in (1, 3) or not text.startswith(b"z"):
            raise ValueError("tables of another version")
        self.code, self.data = body.uleb(), body.sleb()
        body.take(1) if version == 1 else body.uleb()
        behind = body.uleb()
        end = body.at + behind
        self.encoding = 0
        for letter in text[1:]:
            if letter == ord("R"):
                self.encoding = body.number(1)
            elif letter == ord("P"):
                body.take(_WIDTHS[body.number(1) & 0x0F])
            elif letter == ord("L"):
                body.take(1)
            elif letter not in b"SB":
                raise ValueError("an unknown letter")
        self._program = _Reader(body.data, end, body.end)

    def program(self) -> _Reader:
        """The instructions that make the first row."""
        return self._program


class _Rows:
    """Runs call frame instructions, as far as they say where the caller's frame ends."""

    def __init__(self, common: _Common, start: int, at_entry: tuple[int, int]) -> None:
        self._common, self._at_entry = common, at_entry
        self._place = start
        self._now: tuple[int, int] | None = None
        self._kept: list[tuple[int, int] | None] = []
        self._rows: list[tuple[int, bool]] = []
        self._steps = 0

    def begin(self) -> None:
        """The shared instructions are done: what follows is the function's own."""
        self._note()

    def found(self) -> tuple[tuple[int, bool], ...]:
        """All rows, by address."""
        self._note()
        return tuple(self._rows)

    def _note(self) -> None:
        called = self._now == self._at_entry
        if self._rows and self._rows[-1][0] == self._place:
            self._rows.pop()
        self._rows.append((self._place, called))

    def _advance(self, units: int) -> None:
        if self._rows:
            self._note()
        self._place += units * self._common.code

    def run(self, code: _Reader) -> None:
        """Run instructions; raises ValueError for unknown ones."""
        while code.at < code.end:
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise ValueError("too many rows")
            if not self._steps % 4096:
                check_time()
            byte = code.number(1)
            high, low = byte >> 6, byte & 0x3F
            if high == _ADVANCE:
                self._advance(low)
            elif high == _OFFSET:
                code.uleb()
            elif high != _RESTORE:
                self._other(low, code)

    def _other(self, what: int, code: _Reader) -> None:
        advances = {_ADVANCE1: 1, _ADVANCE2: 2, _ADVANCE4: 4}
        if what in advances:
            self._advance(code.number(advances[what]))
        elif what in (_CFA, _CFA_SF):
            register = code.uleb()
            self._now = register, code.uleb() if what == _CFA else code.sleb() * self._common.data
        elif what == _CFA_REGISTER:
            self._now = code.uleb(), self._now[1] if self._now else -1
        elif what in (_CFA_OFFSET, _CFA_OFFSET_SF):
            value = code.uleb() if what == _CFA_OFFSET else code.sleb() * self._common.data
            self._now = self._now[0] if self._now else -1, value
        elif what == _CFA_EXPRESSION:
            code.take(code.uleb())
            self._now = None
        elif what == _REMEMBER:
            self._kept.append(self._now)
        elif what == _BACK:
            self._now = self._kept.pop() if self._kept else None
        else:
            self._skip(what, code)

    def _skip(self, what: int, code: _Reader) -> None:
        """Registers that are saved somewhere: only how long the instruction is matters."""
        if what in _TWO:
            code.uleb()
            code.uleb()
        elif what in _ONE:
            code.uleb()
        elif what in _BLOCK:
            code.uleb()
            code.take(code.uleb())
        elif what not in _NONE:
            raise ValueError("an unknown instruction")
