# SPDX-License-Identifier: Apache-2.0
"""ELF files: sections, symbols, and where in the file an address is.

Reads 64-bit little-endian files as the System V ABI's "Object Files" chapter and LSB's
"Symbol Versioning" describe them, with pread, not mapped: a file that shrinks meanwhile must
not kill. The file is taken to be hostile: what goes beyond the limits below is refused.

pyelftools 0.33 was measured in its place (`bench/elf_readers.py`; CPU time and memory of a search
for all functions, Python 3.11):

    file                                 probes.symbols.elf         pyelftools
    libc, 2,594 functions            7 ms,  0.5 MiB     62 ms, 0.6 MiB
    libpython, 1,472 functions       5 ms,  0.3 MiB     43 ms, 0.4 MiB
    300 MB, 200,000 functions      925 ms,   60 MiB     9.0 s,  41 MiB
    0.5 MB, names without an end   2.5 ms,    0 MiB     1.8 s, 486 MiB

It makes an object of each symbol, which takes nine times as long while somebody waits for what is
typed; it has no limits on names, counts and sections, and some damaged files end it with
exceptions that are not its own. This module reads files of any user with privileges.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Collection, Iterator
from itertools import chain, pairwise, repeat
from typing import NamedTuple

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.suggestions import quote
from probes.host.file_access import check_time
from probes.host.open_file import OpenFile, opened

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
MOST_SECTION = 256 << 20
"""Bytes of the largest section that is read."""
MOST_SECTIONS, MOST_SEGMENTS = 10_000, 128
MOST_SYMBOLS = 1_000_000
"""Entries of a file's symbol tables together."""
MOST_SECTION_NAMES = 4 << 20
"""Bytes of the names of all sections."""
MOST_NAME = 4096
"""Bytes of the longest name; a symbol or section with a longer one is left out."""
MOST_NAMES = 128 << 20
"""Bytes of all names of a file's symbols together: many may share one place."""
_PT_LOAD, _EXECUTABLE, _WRITABLE = 1, 1, 2
_ET_REL, _ET_EXEC, _ET_DYN, _ET_CORE = 1, 2, 3, 4
SYMTAB, _NOTE, _NOBITS, _DYNSYM, _VERSYM = 2, 7, 8, 11, 0x6FFFFFFF
_COMPRESSED = 1 << 11
_HIDDEN = 0x8000
_AT_ONCE = 4096


class Section(NamedTuple):
    """A section: type (SHT_*), address, place in the file, linked section's number."""

    name: str
    kind: int
    address: int
    offset: int
    size: int
    link: int
    flags: int = 0


class Segment(NamedTuple):
    """What is loaded: address, place in the file and bytes from the file; PF_* flags."""

    address: int
    offset: int
    size: int
    flags: int

    @property
    def executable(self) -> bool:
        """Whether its bytes are run."""
        return bool(self.flags & _EXECUTABLE)

    @property
    def writable(self) -> bool:
        """Whether the program may change it."""
        return bool(self.flags & _WRITABLE)


class Symbol(NamedTuple):
    """An entry of a symbol table; `default` is what a program without a version gets."""

    name: str
    kind: int
    address: int
    size: int
    defined: bool
    default: bool


class Elf:
    """An ELF file that is open; a context manager.

    Given a path, it opens the file, and closes it at the end. Every number in the file is taken
    to be wrong until it was compared with the size of the file and the limits above. Raises
    ProbeError for what is no ELF file that runs here.
    """

    def __init__(self, source: str | OpenFile) -> None:
        self.file = opened(source)
        self.path = self.file.path
        self._opened_here = isinstance(source, str)
        try:
            self._read_headers()
        except struct.error as error:
            self.close()
            raise self.damaged("a table is cut off") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Elf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, unless it was open before."""
        if self._opened_here:
            self.file.close()

    def damaged(self, why: str) -> ProbeError:
        """What to raise for a file that contradicts itself."""
        return ProbeError(f"{quote(self.path)} is damaged: {why}", "name an intact file")

    def too_large(self, what: str, limit: str) -> ProbeError:
        """What to raise for a file that goes beyond one of the limits."""
        why = f"{quote(self.path)} has {what}, and {limit} is the most that is read"
        return ProbeError(why, "name a smaller file")

    def _read_headers(self) -> None:
        head = self.file.read(64, 0)
        _check(self.path, head)
        self.kind, self.machine = struct.unpack_from("<2H", head, 16)
        segments, sections = struct.unpack_from("<2Q", head, 32)
        size, count, width, number, names = struct.unpack_from("<5H", head, 54)
        self.segments = self._read_segments(segments, size, count)
        self._starts = [segment.address for segment in self.segments]
        self.sections = self._read_sections(sections, width, number, names) if sections else []

    def _read_segments(self, at: int, width: int, count: int) -> list[Segment]:
        """What is loaded, by address."""
        if count > MOST_SEGMENTS:
            raise self.too_large(f"{count} program headers", str(MOST_SEGMENTS))
        if count and width < 56:
            raise self.damaged("its program headers are too short")
        table = self._read(width * count, at)
        rows = [struct.unpack_from("<2I4Q", table, width * row) for row in range(count)]
        loaded = (r for r in rows if r[0] == _PT_LOAD and r[5])
        found = sorted(Segment(r[3], r[2], r[5], r[1]) for r in loaded)
        for one, following in pairwise(found):
            if one.address + one.size > following.address:
                raise self.damaged("what it loads overlaps")
        return found

    def _read_sections(self, at: int, width: int, number: int, names: int) -> list[Section]:
        first = self._read(64, at)
        # More sections than 16 bits count are counted in the first one.
        number = number or struct.unpack_from("<Q", first, 32)[0]
        names = names if names != 0xFFFF else struct.unpack_from("<I", first, 40)[0]
        if width != 64:
            return []
        if number > MOST_SECTIONS:
            raise self.too_large(f"{number} sections", str(MOST_SECTIONS))
        table = self._read(width * number, at)
        raw = [struct.unpack_from("<2I4QI", table, width * row) for row in range(number)]
        unnamed = [Section("", r[1], r[3], r[4], r[5], r[6], r[2]) for r in raw]
        text = self.data(unnamed[names], MOST_SECTION_NAMES) if names < number else b""
        return [s._replace(name=_string(text, r[0])) for r, s in zip(raw, unnamed, strict=True)]

    def section(self, name: str) -> Section | None:
        """The first section of that name."""
        return next((s for s in self.sections if s.name == name), None)

    def data(
        self, section: Section | None, most: int = MOST_SECTION, used: int = MOST_SECTION
    ) -> bytes:
        """What a section holds; nothing for None and for one that is not in the file.

        Of one with more bytes than are `used`, the first; raises ProbeError for more than `most`.
        """
        if section is None or section.kind == _NOBITS:
            return b""
        if section.flags & _COMPRESSED:
            # Compilers compress debug information alone, none of which is read here.
            raise self.damaged(f"its section {quote(section.name)} is compressed")
        if section.size > most:
            size = f"{most >> 20} MiB" if most >> 20 else f"{most >> 10} KiB"
            raise self.too_large(f"a section {quote(section.name)} of {section.size} bytes", size)
        return self._read(min(section.size, used), section.offset)

    def _read(self, size: int, offset: int) -> bytes:
        """Bytes of the file; raises ProbeError where it cannot have them."""
        if size + offset > self.file.size:
            raise self.damaged("it names what is behind its end")
        return self.file.read(size, offset)

    def segment(self, address: int) -> Segment | None:
        """The segment whose bytes in the file are loaded at an address."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self.segments[at].address + self.segments[at].size:
            return None
        return self.segments[at]

    def offset(self, address: int) -> int | None:
        """The file offset of an address; None for one that is not loaded from the file."""
        found = self.segment(address)
        return None if found is None else address - found.address + found.offset

    def code_offset(self, address: int) -> int | None:
        """As `offset`, but None for an address whose bytes are not run."""
        found = self.segment(address)
        if found is None or not found.executable:
            return None
        return address - found.address + found.offset

    def symbols(self, kinds: Collection[int] | None = None) -> Iterator[Symbol]:
        """Entries of .symtab, then of .dynsym; only those of some types if given."""
        for kind in (SYMTAB, _DYNSYM):
            section = next((s for s in self.sections if s.kind == kind), None)
            if section is not None and section.link < len(self.sections):
                yield from self._table(section, kinds)

    def _table(self, section: Section, kinds: Collection[int] | None) -> Iterator[Symbol]:
        count = section.size // 24
        if count > MOST_SYMBOLS:
            raise self.too_large(f"{count} symbols", str(MOST_SYMBOLS))
        table, strings = self.data(section), self.data(self.sections[section.link])
        hidden = self._hidden(len(table) // 24) if section.kind == _DYNSYM else repeat(0)
        rows = struct.iter_unpack("<IBBHQQ", table[: len(table) // 24 * 24])
        names = 0
        for number, (old, row) in enumerate(zip(hidden, rows, strict=False)):
            if not number % _AT_ONCE:
                check_time()
            at, info, _, section_number, address, size = row
            if kinds is not None and info & 15 not in kinds:
                continue
            end = strings.find(b"\0", at, at + MOST_NAME)
            if end < 0:
                continue
            names += end - at
            if names > MOST_NAMES:
                raise self.too_large("longer names of symbols", f"{MOST_NAMES >> 20} MiB")
            name = strings[at:end].decode("utf-8", "surrogateescape")
            if "@" in name:
                # A linker's symbol@VERSION is an old one, symbol@@VERSION the default.
                name, _, version = name.partition("@")
                old = not version.startswith("@")
            # Local symbols (binding 0) and old versions give way to others of that name.
            default = not old and info >= 16
            yield Symbol(name, info & 15, address, size, section_number != 0, default)

    def _hidden(self, count: int) -> Iterator[int]:
        """Whether each symbol of .dynsym is an old version, as far as the file says."""
        section = next((s for s in self.sections if s.kind == _VERSYM), None)
        data = self.data(section, used=2 * count)
        versions = struct.iter_unpack("<H", data[: len(data) & ~1])
        return chain((version & _HIDDEN for (version,) in versions), repeat(0))

    def build_id(self) -> bytes:
        """The build id, empty if there is none."""
        note = self.data(self.section(".note.gnu.build-id"), MOST_NAME)
        return note[16:] if note[12:16] == b"GNU\0" else b""


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
    if kind == _ET_CORE:
        why = f"{quote(path)} is what remains of a process (a core dump)"
        raise ProbeError(why, "name the program that it was")
    if kind not in (_ET_REL, _ET_EXEC, _ET_DYN):
        raise ProbeError(f"{quote(path)} is no program or library", "name one")
    if kind == _ET_REL:
        raise ProbeError(
            f"{quote(path)} is an object file or kernel module, which no process runs",
            "name a program or a library, or a kernel function (func:)",
        )


def _string(strings: bytes, at: int) -> str:
    end = strings.find(b"\0", at, at + MOST_NAME)
    return strings[at:end].decode("utf-8", "replace") if end >= 0 else ""
