# SPDX-License-Identifier: Apache-2.0
"""Where the functions of a program or library begin: what uprobes need, from its ELF file.

Symbols come from .symtab, .dynsym, the compressed .gnu_debugdata and a separate debug file
(by build id, then by .gnu_debuglink, as GDB finds them).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from probes.base import ProbeError
from probes.elf import MOST, SYMTAB, Elf, Symbol
from probes.near import did_you_mean, mangled, near, quote

DEBUG_ROOT = "/usr/lib/debug"
_FUNC, _IFUNC = 2, 10
_CONTAINER = re.compile(r"(/proc/\d+/root)(/.*)", re.DOTALL)


class Function(NamedTuple):
    """One function: the file offset of its code, its size, both in bytes.

    An `ifunc`'s code is not the function, it only chooses one (once, at program start).
    """

    offset: int
    size: int
    ifunc: bool


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
        if not any(s.kind == SYMTAB for s in elf.sections):
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
        data = lzma.LZMADecompressor().decompress(packed, MOST)
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


def _absent(path: str, name: str, known: Mapping[str, Function], debug_root: str) -> ProbeError:
    """Why a file has no function of that name."""
    with Elf(path) as elf:
        same = [symbol for symbol in elf.symbols() if symbol.name == name]
        whole = any(section.kind == SYMTAB for section in elf.sections)
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
