# SPDX-License-Identifier: Apache-2.0
"""Where the functions of a program or library begin: what uprobes need, from its ELF file.

Symbols come from .symtab, .dynsym, and from debug files (see `probes.symbols.debug_files`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from probes.core.errors import ProbeError
from probes.core.suggestions import did_you_mean, near, quote
from probes.host.file_access import check_time
from probes.host.open_file import OpenFile, opened
from probes.symbols import debug_files, demangle
from probes.symbols.debug_files import DEBUG_ROOT
from probes.symbols.elf import SYMTAB, Elf, Symbol
from probes.symbols.target_spec import is_pattern

_FUNC, _IFUNC = 2, 10
_AT_ONCE = 1024
MOST_FILES, MOST_FUNCTIONS = 64, 1_000_000
"""How many files, and how many functions of them together, are remembered."""


class Function(NamedTuple):
    """One function: the file offset of its code, its size, both in bytes.

    An `ifunc`'s code is not the function, it only chooses one (once, at program start).
    """

    offset: int
    size: int
    ifunc: bool


_functions_of: OrderedDict[tuple[object, ...], Mapping[str, Function]] = OrderedDict()
_readable_of: OrderedDict[tuple[object, ...], Mapping[str, str]] = OrderedDict()


def functions(source: str | OpenFile, debug_root: str = DEBUG_ROOT) -> Mapping[str, Function]:
    """Every function of a file, by symbol name; empty for a stripped one.

    Where a name has several, it is the one that programs without a version get, then a
    global one, then the first. Raises ProbeError for what is no ELF file of this machine.
    The last 64 files are remembered until they change.
    """
    file = opened(source)
    key = (file.path, debug_root, file.version)
    found = _functions_of.get(key)
    if found is None:
        found = _functions_of[key] = _read(file, debug_root)
        while len(_functions_of) > 1 and _is_too_much():
            _functions_of.popitem(last=False)
    _functions_of.move_to_end(key)
    return found


def _is_too_much() -> bool:
    known = sum(map(len, _functions_of.values()))
    return len(_functions_of) > MOST_FILES or known > MOST_FUNCTIONS


def readable_names(source: str | OpenFile, debug_root: str = DEBUG_ROOT) -> Mapping[str, str]:
    """The names of a file's C++ and Rust functions as their source has them, by symbol."""
    file = opened(source)
    key = (file.path, debug_root, file.version)
    if key not in _readable_of:
        _readable_of[key] = demangle.readable(functions(file, debug_root))
        while len(_readable_of) > 1 and sum(map(len, _readable_of.values())) > demangle.MOST:
            _readable_of.popitem(last=False)
    return _readable_of[key]


def symbol_of(source: str | OpenFile, name: str, debug_root: str = DEBUG_ROOT) -> str:
    """The symbol of a function by its readable name; of any other name, that name itself.

    Raises ProbeError where functions with several lists of arguments have that name.
    """
    file = opened(source)
    known = functions(file, debug_root)
    if name in known or (is_pattern(name) and not demangle.is_readable(name)):
        return name
    names = readable_names(file, debug_root)
    found = [one for one in demangle.meant(name, names) if not known[one].ifunc]
    # A constructor has a symbol for its class as a part of another, too.
    if len({known[one].offset for one in found}) > 1:
        whole = list(dict.fromkeys(names[one] for one in found))
        why = f"{quote(file.path)} has {len(found)} functions {quote(name)}"
        choice = whole if len(whole) == len(found) else found
        raise ProbeError(why, did_you_mean(choice[:3]))
    return found[0] if found else name


def is_go(source: str | OpenFile) -> bool:
    """Whether a file was built by the Go compiler, whose stacks move; raises ProbeError."""
    with Elf(opened(source)) as elf:
        return any(s.name in (".go.buildinfo", ".note.go.buildid") for s in elf.sections)


def _read(file: OpenFile, debug_root: str) -> Mapping[str, Function]:
    with Elf(file) as elf:
        found: dict[str, Function] = {}
        if not any(s.kind == SYMTAB for s in elf.sections):
            _add(found, elf, debug_files.symbols(elf, debug_root))
        _add(found, elf, elf.symbols((_FUNC, _IFUNC)))
        return found


def _add(found: dict[str, Function], elf: Elf, symbols: Iterator[Symbol]) -> None:
    for name, kind, address, size, defined, default in symbols:
        if kind not in (_FUNC, _IFUNC) or not defined or (name in found and not default):
            continue
        offset = elf.code_offset(address)
        # What a file's author named with control characters must not reach a terminal.
        if offset is not None and name and name.isprintable():
            found[name] = Function(offset, size, kind == _IFUNC)


def address_offset(source: str | OpenFile, address: int) -> int:
    """The file offset of the code at an address as the file numbers it; raises ProbeError."""
    file = opened(source)
    with Elf(file) as elf:
        offset = elf.code_offset(address)
    if offset is None:
        raise ProbeError(
            f"{quote(file.path)} has nothing at address {address:#x} that is run",
            "take addresses from nm or objdump, not from a running process",
        )
    return offset


def covering(source: str | OpenFile, offset: int) -> tuple[str, Function] | None:
    """The function that an offset in a file lies in, by name; of several the innermost."""
    found = None
    for name, one in functions(source).items():
        if (
            one.offset <= offset < one.offset + one.size
            and not one.ifunc
            and (found is None or one.offset > found[1].offset)
        ):
            found = name, one
    return found


def function(source: str | OpenFile, name: str, debug_root: str = DEBUG_ROOT) -> Function:
    """The function of that name; raises ProbeError that says why there is none to trace."""
    file = opened(source)
    known = functions(file, debug_root)
    found = known.get(name)
    if found is None:
        raise _absent(file, name, known, debug_root)
    if found.ifunc:
        chosen = [n for n in known if n.startswith(f"__{name}_") and not known[n].ifunc]
        debug = "install the file's debug symbols, then "
        raise ProbeError(
            f"{name} of {quote(file.path)} only chooses the function that fits this CPU, "
            "once, when a program starts",
            f"{'' if chosen else debug}trace what it chooses from: uprobe:{file.path}:__{name}_*",
        )
    return found


def _timed(names: Iterable[str]) -> Iterator[str]:
    """Names, as long as the target at hand has time; raises ProbeError then."""
    for number, name in enumerate(names):
        if not number % _AT_ONCE:
            check_time()
        yield name


def _absent(
    file: OpenFile, name: str, known: Mapping[str, Function], debug_root: str
) -> ProbeError:
    """Why a file has no function of that name."""
    path = file.path
    with Elf(file) as elf:
        same = [symbol for symbol in elf.symbols() if symbol.name == name]
        whole = any(section.kind == SYMTAB for section in elf.sections)
        stripped = not whole and debug_files.believed(elf, debug_root) is None
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
        others = "use one of its static probes (usdt:), or " if static_probes else ""
        return ProbeError(
            f"{quote(path)} is stripped: it names no function at all",
            f"{others}{debug}",
        )
    names = readable_names(file, debug_root)
    candidates = demangle.ending(name, names) or near(name, _timed(known))
    if stripped:
        return ProbeError(
            f"{quote(path)} is stripped, and {shown} is none of the {len(known)} "
            "functions that it exports",
            did_you_mean(candidates, debug),
        )
    why = f"{quote(path)} has no function {shown} (misspelt, or inlined where it is called)"
    return ProbeError(why, did_you_mean(candidates, "look for it with f, or nm"))
