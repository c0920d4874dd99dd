# SPDX-License-Identifier: Apache-2.0
"""Where the functions of a program or library begin: what uprobes need, from its ELF file.

Reads 64-bit little-endian files as the System V ABI's "Object Files" chapter and LSB's
"Symbol Versioning" describe them. Symbols come from .symtab, .dynsym, the compressed
.gnu_debugdata and a separate debug file (by build id, then by .gnu_debuglink, as GDB finds
them). Files are read with pread, not mapped: one that shrinks meanwhile must not kill.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from probes import kernel
from probes.base import ProbeError
from probes.near import did_you_mean, mangled, near, quote

DEBUG_ROOT = "/usr/lib/debug"
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
_MOST = 1 << 30
"""Most bytes of a section; a bigger symbol table is a damaged or a hostile one."""
_PT_LOAD, _ET_REL = 1, 1
_SYMTAB, _NOTE, _NOBITS, _DYNSYM, _VERSYM = 2, 7, 8, 11, 0x6FFFFFFF
_FUNC, _IFUNC = 2, 10
_HIDDEN = 0x8000
_CONTAINER = re.compile(r"(/proc/\d+/root)(/.*)", re.DOTALL)


class Function(NamedTuple):
    """One function: the file offset of its code, its size, both in bytes.

    An `ifunc`'s code is not the function, it only chooses one (once, at program start).
    """

    offset: int
    size: int
    ifunc: bool


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
        if size > min(self._size, _MOST) or offset > self._size:
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
        for kind in (_SYMTAB, _DYNSYM):
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


def functions(path: str, debug_root: str = DEBUG_ROOT) -> Mapping[str, Function]:
    """Every function of a file, by symbol name; empty for a stripped one.

    Where a name has several, it is the one that programs without a version get, then a
    global one, then the first. Raises ProbeError for what is no ELF file of this machine.
    The last 64 files are remembered until they change.
    """
    return _functions(path, debug_root, version_of(path))


def is_go(path: str) -> bool:
    """Whether a file was built by the Go compiler, whose stacks move; raises ProbeError."""
    return _is_go(path, version_of(path))


def version_of(path: str) -> tuple[int, ...]:
    """What changes with a file's content; nothing for one that cannot be read."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


@lru_cache(64)
def _is_go(path: str, version: tuple[int, ...]) -> bool:
    with Elf(path) as elf:
        return any(s.name in (".go.buildinfo", ".note.go.buildid") for s in elf.sections)


@lru_cache(64)
def _functions(path: str, debug_root: str, version: tuple[int, ...]) -> Mapping[str, Function]:
    with Elf(path) as elf:
        found: dict[str, Function] = {}
        if not any(s.kind == _SYMTAB for s in elf.sections):
            _add(found, elf, _debug_symbols(elf, debug_root))
        _add(found, elf, elf.symbols())
        return found


def _add(found: dict[str, Function], elf: Elf, symbols: Iterator[Symbol]) -> None:
    for name, kind, address, size, defined, default in symbols:
        if kind not in (_FUNC, _IFUNC) or not defined or (name in found and not default):
            continue
        offset = elf.offset(address)
        # What a file's author named with control characters must not reach a terminal.
        if offset is not None and name and name.isprintable():
            found[name] = Function(offset, size, kind == _IFUNC)


def _debug_symbols(elf: Elf, debug_root: str) -> Iterator[Symbol]:
    """Symbols that were taken out of a file: of its debug file, else of .gnu_debugdata."""
    for path in debug_files(elf, debug_root):
        try:
            with Elf(path) as debug:
                # Another build's addresses would be wrong ones.
                if debug.build_id() == elf.build_id():
                    yield from debug.symbols()
                    return
        except (ProbeError, struct.error):
            continue
    packed = elf.data(elf.section(".gnu_debugdata"))
    if packed:
        yield from _unpacked(packed)


def debug_files(elf: Elf, debug_root: str = DEBUG_ROOT) -> list[str]:
    """Existing files that may hold the symbols of a stripped one, best first."""
    inside = _CONTAINER.fullmatch(elf.path)
    root, path = (inside[1], inside[2]) if inside else ("", os.path.realpath(elf.path))
    names = []
    build_id = elf.build_id().hex()
    if build_id:
        names.append(f"{debug_root}/.build-id/{build_id[:2]}/{build_id[2:]}.debug")
    link = elf.data(elf.section(".gnu_debuglink")).partition(b"\0")[0].decode(errors="replace")
    if link and "/" not in link:
        directory = os.path.dirname(path)
        names += [
            f"{directory}/.debug/{link}",
            f"{debug_root}{directory}/{link}",
            f"{directory}/{link}",
        ]
    found = [root + name for name in names] + ([names[0]] if root and build_id else [])
    return [name for name in found if os.path.isfile(name) and name != elf.path]


def _unpacked(packed: bytes) -> Iterator[Symbol]:
    """Symbols of .gnu_debugdata: an xz-compressed ELF file (Fedora's "MiniDebugInfo")."""
    import lzma

    try:
        data = lzma.LZMADecompressor().decompress(packed, _MOST)
    except lzma.LZMAError:
        return
    fd = os.memfd_create("debugdata")
    try:
        os.write(fd, data)
        with Elf(f"/proc/self/fd/{fd}") as elf:
            yield from elf.symbols()
    except (ProbeError, struct.error):
        return
    finally:
        os.close(fd)


def address_offset(path: str, address: int) -> int:
    """The file offset of an address as the file numbers it; raises ProbeError."""
    with Elf(path) as elf:
        offset = elf.offset(address)
    if offset is None:
        raise ProbeError(
            f"{quote(path)} has nothing at address {address:#x}",
            "take addresses from nm or objdump, not from a running process",
        )
    return offset


def function(path: str, name: str, debug_root: str = DEBUG_ROOT) -> Function:
    """The function of that name; raises ProbeError that says why there is none to trace."""
    known = functions(path, debug_root)
    found = known.get(name)
    if found is None:
        raise _absent(path, name, known, debug_root)
    if found.ifunc:
        chosen = [n for n in known if n.startswith(f"__{name}_") and not known[n].ifunc]
        debug = "install the file's debug symbols, then "
        raise ProbeError(
            f"{name} of {quote(path)} only chooses the function that fits this CPU, "
            "once, when a program starts",
            f"{'' if chosen else debug}trace what it chooses from: uprobe:{path}:__{name}_*",
        )
    return found


def symbol_offset(path: str, name: str) -> int:
    """The file offset of a function's code; raises ProbeError as `function` does."""
    return function(path, name).offset


def _absent(path: str, name: str, known: Mapping[str, Function], debug_root: str) -> ProbeError:
    """Why a file has no function of that name."""
    with Elf(path) as elf:
        same = [symbol for symbol in elf.symbols() if symbol.name == name]
        whole = any(section.kind == _SYMTAB for section in elf.sections)
        stripped = not whole and not debug_files(elf, debug_root)
        static_probes = elf.section(".note.stapsdt") is not None
    shown = quote(name)
    if any(symbol.defined for symbol in same):
        return ProbeError(f"{shown} of {quote(path)} is data, not a function", "name a function")
    if same:
        return ProbeError(
            f"{quote(path)} uses {shown} of a library, but does not contain it",
            f"name the library, for example uprobe:libc:{name}",
        )
    debug = "install its debug symbols (a package -dbgsym or -debuginfo)"
    if not known:
        others = "use one of its static probes (usdt:), " if static_probes else ""
        return ProbeError(
            f"{quote(path)} is stripped: it names no function at all",
            f"{debug}, {others}or give an address (uprobe:PATH:0x1c20)",
        )
    candidates = mangled(name, known) or near(name, known)
    if stripped:
        return ProbeError(
            f"{quote(path)} is stripped, and {shown} is none of the {len(known)} "
            "functions that it exports",
            did_you_mean(candidates, debug),
        )
    why = f"{quote(path)} has no function {shown} (misspelt, or inlined where it is called)"
    return ProbeError(why, did_you_mean(candidates, "look for it with f, or nm"))
