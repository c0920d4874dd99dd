# SPDX-License-Identifier: Apache-2.0
"""Why a return probe could harm the programs that run a function, as far as its file tells.

A return probe replaces the return address on the stack. What walks or leaves the stack by other
means than the return finds an address that is in no table: an exception ends the program, and so
does a switch of stacks. A frame needs no handler of its own for an exception to pass through it, so
a whole file is judged: by the runtimes that it links and the tables that it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from probes.core import kernel
from probes.host.open_file import OpenFile
from probes.symbols.elf import SYMTAB, Elf
from probes.uprobes import harm_trials

EXCEPTION = "an exception through it would abort the program"
STACKS = "the program switches stacks, and would end when it returns on another one"
TWICE = "it returns more than once, and the program would end at the second time"
CALLER = "it looks up who called it, and would not find it"
SECCOMP = "this kernel ends processes that filter system calls (seccomp) when it returns"
"""What a row says behind "counted only:"."""

_DYNSYM = 11
_NEEDED, _SONAME = 1, 14
MOST_STRINGS = 256 << 20
"""Bytes of the largest table of names that is searched."""
_RUNTIMES = re.compile(
    r"lib(stdc\+\+|c\+\+|c\+\+abi|supc\+\+|gcc_s|unwind|gnat|gnarl|std-[0-9a-f]+|objc"
    r"|gdruntime|gphobos|druntime|phobos2|swiftCore)(\W.*)?"
)
_THROWS = (
    b"__gxx_personality",
    b"__cxa_throw",
    b"rust_eh_personality",
    b"rust_panic",
    b"__gnat_personality",
    b"__objc_personality",
    b"__gdc_personality",
    b"_d_eh_personality",
    b"_swift_",
)
_SWITCHES = (b"makecontext", b"jump_fcontext", b"coro_transfer")
_C_CLEANUP = b"__gcc_personality_v0"
_LIBC = re.compile(r"libc\.so\.6(\.1)?|libc\.musl-\w+\.so\.1|libpthread\.so\.0")
_LIBC_CALLS_BACK = re.compile(
    r"qsort(_r)?|msort|[bl]search|lfind|t(search|find|delete|destroy)|twalk(_r)?|n?ftw(64)?"
    r"|fts_(open|read|children)|scandir(64|at)?|glob(64)?|dl_iterate_phdr|pthread_once|call_once"
    r"|argp_\w+|error|libc_start_\w+|start_thread|clone[23]?|cxa_finalize|run_exit_handlers"
)
"""Functions of the C library that call functions of the program, which may throw."""
_RETURN_TWICE = re.compile(
    r"(sig)?setjmp|(libc_)?vfork|[gs]etcontext|swapcontext|start_context|(libc_)?(sig)?longjmp"
    r"|(jump|make)_fcontext"
)
_LOOK_AT_CALLER = re.compile(r"dlm?open|dlv?sym|backtrace|mcount|fentry")
_SYSCALL_SINCE, _SYSCALL_UNTIL = (6, 11), (6, 14)


def of(file: OpenFile, symbol: str) -> str:
    """Why a return probe could harm, "" where nothing is known that could; raises ProbeError."""
    name = plain_name(symbol)
    if _RETURN_TWICE.fullmatch(name):
        return TWICE
    if _LOOK_AT_CALLER.fullmatch(name):
        return CALLER
    asked = _SYSCALL_SINCE <= kernel.version()[:2] < _SYSCALL_UNTIL
    if asked and not harm_trials.harmless(harm_trials.passes_filters):
        return SECCOMP
    with Elf(file) as elf:
        return _of_file(elf, name)


def is_fatal(why: str) -> bool:
    """Whether a return probe is certain to harm, so that nobody can allow it."""
    return why == TWICE


def plain_name(symbol: str) -> str:
    """A function's name without what the C library puts around names of its own."""
    return symbol.partition("@")[0].removeprefix("__GI_").strip("_")


def _of_file(elf: Elf, name: str) -> str:
    if not elf.sections:
        return EXCEPTION
    needed, own_name = _dynamic(elf)
    if _LIBC.fullmatch(own_name):
        return EXCEPTION if _LIBC_CALLS_BACK.fullmatch(name) else ""
    if any(_RUNTIMES.fullmatch(one) for one in needed):
        return EXCEPTION
    tables = [_names(elf, kind) for kind in (SYMTAB, _DYNSYM)]
    if any(word in table for word in _THROWS for table in tables):
        return EXCEPTION
    if any(word in table for word in _SWITCHES for table in tables):
        return STACKS
    handlers = elf.section(".gcc_except_table")
    # A C program's own are to tidy up when a thread is cancelled; what it is, its symbols tell.
    if handlers is not None and handlers.size and _C_CLEANUP not in tables[0]:
        return EXCEPTION
    return ""


def _names(elf: Elf, kind: int) -> bytes:
    """The names of a symbol table, one after the other."""
    section = next((s for s in elf.sections if s.kind == kind), None)
    if section is None or section.link >= len(elf.sections):
        return b""
    return elf.data(elf.sections[section.link], MOST_STRINGS)


def _dynamic(elf: Elf) -> tuple[list[str], str]:
    """The libraries that a file is linked to, and its own name as a library."""
    section = elf.section(".dynamic")
    if section is None or section.link >= len(elf.sections):
        return [], ""
    strings = elf.data(elf.sections[section.link], MOST_STRINGS)
    needed, own = [], ""
    for tag, at in _pairs(elf.data(section, 1 << 20)):
        end = strings.find(b"\0", at, at + 4096)
        if tag in (_NEEDED, _SONAME) and end >= 0:
            text = strings[at:end].decode("utf-8", "replace")
            needed += [text] if tag == _NEEDED else []
            own = text if tag == _SONAME else own
    return needed, own


def _pairs(data: bytes) -> Iterator[tuple[int, int]]:
    words = memoryview(data[: len(data) & ~15]).cast("Q")
    return zip(words[::2], words[1::2], strict=True)
