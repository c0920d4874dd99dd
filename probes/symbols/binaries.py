# SPDX-License-Identifier: Apache-2.0
"""Which file, and which places in it, a target of user space means.

A name becomes a file through a process's memory maps, PATH or the dynamic linker's
cache; a file's symbol or static probe becomes the file offsets that uprobes attach to.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Mapped
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.suggestions import did_you_mean, near, quote
from probes.host import file_access, memory_locks
from probes.host.mapped_files import MOST_BYTES
from probes.host.open_file import OpenFile, open_file, opened
from probes.symbols import demangle, functions, instruction_boundaries
from probes.symbols.globs import matching
from probes.symbols.target_spec import Spec
from probes.symbols.usdt import arguments_of, check_nop, find_probes
from probes.symbols.usdt_operands import Argument

LIMIT = 64
"""Most functions that one wildcard is attached to."""
INSIDE = "no function is known to begin here"
GO = "Go moves its stacks, and a return probe would crash the program"
MOST_PLACES = 1024
"""Most places of one static probe, which a compiler multiplies by inlining."""
LD_CACHE = "/etc/ld.so.cache"
MOST_CACHE = 64 << 20
"""Bytes of the largest linker's cache that is read."""
LIBRARY_DIRECTORIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_ARCH = {"x86_64": 0x0300, "arm64": 0x0A00}


class Mapping(NamedTuple):
    """A file that a process executes code of: as the process names it, and as we open it."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class FilePlace:
    """Where a uprobe goes: `offset` in bytes from the beginning of the file `path`.

    `no_return` is why a return probe must not be added here, for it would crash the traced
    program or never fire; "" where a call can be timed. A static probe has the file offset
    of its reference counter (`semaphore`, 0 for none) and its `arguments`.
    """

    path: str
    name: str
    offset: int
    no_return: str = ""
    semaphore: int = 0
    arguments: tuple[Argument, ...] = ()
    file: OpenFile | None = field(default=None, compare=False)


def places(spec: Spec, pid: int | None = None, limit: int = LIMIT) -> list[FilePlace]:
    """Every place that a uprobe or usdt target means (of a pair: its first half).

    The file is opened once, and is what the places lead to for as long as they exist. Functions
    under several names are there once. Raises ProbeError for a file, function or
    static probe that is not there, and for a wildcard that matches none or over `limit`.
    """
    file = open_file(find_binary(spec.path, pid))
    if spec.kind == "usdt":
        return _static_probes(file, spec)
    if not spec.symbol:
        return [_at_address(file, spec.offset or 0)]
    symbol = functions.symbol_of(file, spec.symbol)
    if spec.wildcard and symbol not in functions.functions(file):
        return _matching(file, spec.symbol, limit)
    function = functions.function(file, symbol)
    if not spec.offset:
        why = no_return(file, symbol)
        return [FilePlace(file.path, spec.symbol, function.offset, why, file=file)]
    if function.size and spec.offset >= function.size:
        raise ProbeError(
            f"{spec.symbol} of {quote(file.path)} is {function.size} bytes long, so that "
            f"+{spec.offset:#x} is behind its end",
            "give an offset inside of it",
        )
    name = f"{spec.symbol}+{spec.offset:#x}"
    instruction_boundaries.check(file, function.offset, function.size, spec.offset, name)
    return [FilePlace(file.path, name, function.offset + spec.offset, INSIDE, file=file)]


def _static_probes(file: OpenFile, spec: Spec) -> list[FilePlace]:
    """The places of a static probe; raises ProbeError."""
    found = find_probes(file, spec.provider, spec.name)
    if len(found) > MOST_PLACES:
        why = f"{quote(spec.name)} is in {len(found)} places, and {MOST_PLACES} is the most"
        raise ProbeError(why, "trace a function around it instead")
    for probe in found:
        check_nop(file, probe)
    why = "a static probe is one instant"
    carried = arguments_of(file, found)
    return [
        FilePlace(file.path, f"{p.provider}:{p.name}", p.offset, why, p.semaphore, known, file)
        for p, known in zip(found, carried, strict=True)
    ]


def no_return(file: OpenFile, symbol: str) -> str:
    """Why a function's return cannot be probed safely, "" where it can."""
    if functions.is_go(file):
        return GO
    if symbol == "_start":
        return "a program's first instruction is not called, so that it never returns"
    if is_fragment(symbol):
        return "it is a part of a function, entered by a jump"
    return ""


def is_fragment(symbol: str) -> bool:
    """Whether a symbol is the rarely run part of a function, which a compiler put elsewhere."""
    return ".cold" in symbol and re.search(r"\.cold(\.|$)", symbol) is not None


def _at_address(file: OpenFile, address: int) -> FilePlace:
    offset = functions.address_offset(file, address)
    names = [
        name for name, f in functions.functions(file).items() if f.offset == offset and not f.ifunc
    ]
    if names:
        name = min(names, key=len)
        return FilePlace(file.path, name, offset, no_return(file, name), file=file)
    around = functions.covering(file, offset)
    if around is None:
        why = f"{quote(file.path)} has no function around {address:#x}, as far as it names them"
        raise ProbeError(why, "install its debug symbols, or name a function")
    start, size = around[1].offset, around[1].size
    instruction_boundaries.check(file, start, size, offset - start, f"{address:#x}")
    return FilePlace(file.path, f"{address:#x}", offset, INSIDE, file=file)


def _matching(file: OpenFile, pattern: str, limit: int) -> list[FilePlace]:
    known = functions.functions(file)
    readable = functions.readable_names(file) if demangle.is_readable(pattern) else {}
    called: dict[str, list[str]] = {}
    for name in known:
        called.setdefault(readable.get(name, name), []).append(name)
    found = {
        known[name].offset: name
        for name in sorted((n for c in matching(pattern, called) for n in called[c]), reverse=True)
        if not known[name].ifunc and not is_fragment(name)
    }
    check_matches(pattern, len(found), limit, f" of {quote(file.path)}")
    names = sorted((name, offset) for offset, name in found.items())
    return [
        FilePlace(file.path, name, offset, no_return(file, name), file=file)
        for name, offset in names
    ]


def check_matches(pattern: str, count: int, limit: int, where: str = "") -> None:
    """Raises ProbeError unless a wildcard matches from one to `limit` functions."""
    if count > limit:
        why = f"{quote(pattern)} matches {count} functions{where}, and {limit} at once is the most"
        raise ProbeError(why, "make the pattern longer")
    if not count:
        why = f"{quote(pattern)} matches no function{where} that can be traced"
        raise ProbeError(why, "make the pattern shorter, or look with f")


def find_binary(
    name: str,
    pid: int | None = None,
    *,
    proc: str = "/proc",
    cache: str = LD_CACHE,
    directories: Iterable[str] = LIBRARY_DIRECTORIES,
) -> str:
    """The path of a program or library named by its path, "bash", "libc" or "libc.so.6".

    With a process, what that process has mapped comes first and absolute paths are its own
    (a container's); then the path returned goes through /proc/PID/root where it sees other
    files than we do. Raises ProbeError for a name that means nothing or several files.
    """
    if pid is not None and not os.path.isdir(f"{proc}/{file_access.checked_pid(pid)}"):
        raise ProbeError(f"there is no process {pid}", "check the pid")
    if "/" in name:
        path = os.path.abspath(name)
        return root_of(pid, proc) + path if pid is not None else path
    if pid is not None:
        known = mappings(pid, proc)
        found = {m.name: m.path for m in known if _is_called(name, os.path.basename(m.name))}
        if found:
            return _only(name, found, f"process {pid}")
    with file_access.rights():
        program = _program(name)
        if program is not None and not _is_library(name):
            return program
        libraries = _libraries(name, cache, directories)
        if libraries:
            return _only(name, {os.path.realpath(one): one for one in libraries}, "this machine")
    if program is not None:
        return program
    raise _unknown(name, pid, proc, cache)


def which(name: str, folders: Iterable[str] | None = None) -> str | None:
    """The first executable of that name in PATH, for the effective user of this process.

    shutil.which asks for the real user, who is root while files are looked up for somebody else.
    """
    for folder in os.get_exec_path() if folders is None else folders:
        path = os.path.join(folder, name)
        with suppress(ValueError):
            if os.access(path, os.X_OK, effective_ids=True) and os.path.isfile(path):
                return path
    return None


def _program(name: str) -> str | None:
    """The first program of that name in PATH; raises ProbeError for a script before it."""
    script = which(name)
    if script is None or not _is_script(script):
        return script
    later = [which(name, [folder]) for folder in os.get_exec_path()]
    found = next((path for path in later if path and not _is_script(path)), None)
    if found is None:
        return script
    why = f"the first {quote(name)} in PATH is a script ({script}), which has no functions"
    raise ProbeError(why, f"write {found}, a program further on in PATH, or what the script runs")


def _is_script(path: str) -> bool:
    try:
        return opened(path).read(2, 0) == b"#!"
    except ProbeError:
        return False


def mappings(pid: int, proc: str = "/proc") -> list[Mapping]:
    """The files that a process executes code of, its program first; raises ProbeError."""
    memory_locks.check_process(file_access.checked_pid(pid))
    try:
        with open(f"{proc}/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            lines = [line.split(maxsplit=5) for line in maps.read(MOST_BYTES).split("\n")]
    except FileNotFoundError as error:
        raise ProbeError(f"there is no process {pid}", "check the pid") from error
    except OSError as error:
        why = f"the memory map of process {pid} cannot be read ({error.strerror})"
        raise ProbeError(why, "name the file by its path instead of by the pid") from error
    found: dict[str, Mapping] = {}
    root = root_of(pid, proc)
    jail = _jail(pid, proc)
    for fields in lines:
        if len(fields) < 6 or "x" not in fields[1] or not fields[5].startswith("/"):
            continue
        # What the kernel escapes in this file is the newline alone.
        name = fields[5].replace("\\012", "\n")
        # Names are those of our root; a process in a directory of its own sees the rest of them.
        inner = name.removeprefix(jail) if name.startswith(jail + "/") else name
        path = root + inner
        if name.endswith(" (deleted)"):
            # The file was replaced, by an upgrade for example; this still leads to it.
            name = name.removesuffix(" (deleted)")
            path = f"{proc}/{pid}/map_files/{_range(fields[0])}"
        found.setdefault(name, Mapping(name, path))
    return list(found.values())


def _range(text: str) -> str:
    """A range of addresses as map_files has it, without the leading zeros of maps."""
    return "-".join(f"{int(address, 16):x}" for address in text.split("-"))


def _jail(pid: int, proc: str) -> str:
    """Which directory is the root of a process that sees our file systems, "" for the whole."""
    try:
        if os.readlink(f"{proc}/{pid}/ns/mnt") == os.readlink(f"{proc}/self/ns/mnt"):
            return os.readlink(f"{proc}/{pid}/root").rstrip("/")
    except OSError:
        pass
    return ""


def root_of(pid: int, proc: str = "/proc") -> str:
    """What to put before a process's absolute paths: "" where it sees the same files."""
    file_access.checked_pid(pid)
    try:
        same = os.readlink(f"{proc}/{pid}/ns/mnt") == os.readlink(f"{proc}/self/ns/mnt")
        if same and os.readlink(f"{proc}/{pid}/root") == "/":
            return ""
    except OSError:
        pass
    return f"{proc}/{pid}/root"


def _is_library(name: str) -> bool:
    return name.startswith("lib") or ".so" in name


def _is_called(name: str, base: str) -> bool:
    """Whether a file of that base name is meant: "libc" is libc.so.6 and libc-2.31.so."""
    if base == name:
        return True
    rest = base.removeprefix(name)
    return rest != base and re.fullmatch(r"(-[\d.]+)?\.so(\.[\d.]+)?", rest) is not None


def _only(name: str, files: Mapped[str, str], where: str) -> str:
    """The only one of some paths, by the file that each leads to; raises ProbeError."""
    if len(files) > 1:
        why = f"{quote(name)} means {len(files)} files of {where}: {', '.join(sorted(files))}"
        raise ProbeError(why, "give the path of one")
    return next(iter(files.values()))


def _libraries(name: str, cache: str, directories: Iterable[str]) -> list[str]:
    """Files of libraries of that name: from the linker's cache, else from directories."""
    cached = list(cached_libraries(cache))
    if cached:
        return [path for base, path in cached if _is_called(name, base)]
    return [
        entry.path
        for directory in directories
        if os.path.isdir(directory)
        for entry in os.scandir(directory)
        if _is_called(name, entry.name)
    ]


def cached_libraries(cache: str = LD_CACHE) -> Iterator[tuple[str, str]]:
    """(name, path) of this architecture's libraries in ld.so.cache; nothing if unreadable.

    The layout is glibc's: sysdeps/generic/dl-cache.h, struct cache_file_new.
    """
    try:
        with open(cache, "rb") as file:
            data = file.read(MOST_CACHE)
    except OSError:
        return
    # A cache of an old format may lie before the one of today.
    start = data.find(_CACHE_MAGIC)
    if start < 0:
        return
    data = data[start:]
    wanted = _CACHE_ARCH.get(kernel.arch() or "")
    try:
        (count,) = struct.unpack_from("<I", data, 20)
        entries = list(struct.iter_unpack("<4IQ", data[48 : 48 + 24 * count]))
    except struct.error:
        return
    for flags, key, value, _, _ in entries:
        if flags & 0xFF00 == wanted:
            yield _text(data, key), _text(data, value)


def _text(data: bytes, at: int) -> str:
    return os.fsdecode(data[at : data.find(b"\0", at)])


def _unknown(name: str, pid: int | None, proc: str, cache: str) -> ProbeError:
    if pid is not None:
        known = [os.path.basename(mapping.name) for mapping in mappings(pid, proc)]
        why = f"process {pid} runs no code of a file called {quote(name)}"
        listed = f"it uses {', '.join(known[:6])}{' and others' if len(known) > 6 else ''}"
        return ProbeError(why, did_you_mean(near(name, known), listed))
    known = sorted({base.partition(".so")[0] for base, _ in cached_libraries(cache)})
    why = f"there is no program or library called {quote(name)}"
    return ProbeError(why, did_you_mean(near(name, known), "give its path"))
