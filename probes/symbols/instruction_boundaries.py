# SPDX-License-Identifier: Apache-2.0
"""Proves that an instruction begins at an offset inside of a function.

A uprobe writes a breakpoint into the code. Written into the middle of an instruction it makes
another one of it, in a program that may have more rights than the person who asks; written into
data between instructions it changes the data. So the function is followed from its start, along
direct jumps; what only a jump table or an exception leads to is not proven. The disassembler is C
code that reads bytes of anybody's choice: it runs in a child that has given up all privileges and
answers with numbers only.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from typing import Any

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.suggestions import quote
from probes.host import file_access, unprivileged
from probes.host.open_file import OpenFile

MOST_CODE = 256 << 10
"""Bytes of a function that are decoded to prove an offset in it."""
SECONDS = 5.0
"""Most that decoding one function may take."""
_CHUNK = 128
"""Bytes that are decoded at once: many jumps lead to what was decoded before."""
_ENDS = {
    "x86_64": re.compile(r"jmp|ljmp|retf?q?|iret[dq]?|sysretq?|sysexitq?|hlt|ud[012]|int3"),
    "arm64": re.compile(r"b|br|bra[ab]z?|ret|reta[ab]|eret|ereta[ab]|drps|udf|hlt|brk"),
}
"""Instructions behind which another one begins only if something jumps there."""
_JUMPS = {
    "x86_64": re.compile(r"j\w+|loop\w*|xbegin"),
    "arm64": re.compile(r"b|bc?\.\w+|cbn?z|tbn?z"),
}
_CALLS = {"x86_64": "call", "arm64": "bl"}
_TARGET = re.compile(r"(?:.*, )?#?(0x[0-9a-f]+|[0-9]+)")
"""Operands that end with an address; small ones are written without 0x."""
_MARK = 0xFFFFFFFF


def check(file: OpenFile, start: int, size: int, offset: int, name: str) -> None:
    """Raises ProbeError unless an instruction begins `offset` bytes behind a function's start."""
    if not file_access.offsets_allowed():
        why = f"{quote(name)} is inside of a function, which may not be traced here"
        raise ProbeError(why, "name a function, or start the agent with --allow-offsets")
    if not 0 <= offset < size:
        why = f"{quote(file.path)} has no function of a known size around {quote(name)}"
        raise ProbeError(why, "install its debug symbols, or name a function")
    if offset >= MOST_CODE:
        why = f"{quote(name)} is more than {MOST_CODE >> 10} KiB behind its function's start"
        raise ProbeError(why, "choose an instruction nearer to the start")
    code = file.read(min(size, MOST_CODE), start)
    if not _begins_at(code, offset):
        why = f"no instruction of {quote(file.path)} is proven to begin at {quote(name)}"
        fix = "take an instruction from objdump -d that the start leads to without a jump table"
        raise ProbeError(why, fix)


def _begins_at(code: bytes, offset: int) -> bool:
    """Whether the code's start leads to an instruction at an offset, and to none around it."""
    starts, inner = decoded(code)
    # A jump behind a lock prefix is what the C library does where there is one thread.
    return offset in starts and offset not in inner


def decoded(code: bytes) -> tuple[frozenset[int], frozenset[int]]:
    """Where instructions begin that the start leads to, and which of them begin in another one.

    Raises ProbeError when the child that decodes dies or takes too long.
    """
    numbers = in_child(lambda capstone: _decode(capstone, code), 2 * len(code) + 2)
    if numbers.count(_MARK) != 2 or numbers[-1] != _MARK:
        raise _unanswered()
    end = numbers.index(_MARK)
    return frozenset(numbers[:end]), frozenset(numbers[end + 1 : -1])


def in_child(decode: Callable[[Any], bytes], most: int) -> array[int]:
    """At most so many 32-bit numbers that `decode`, given capstone, makes without privileges.

    Raises ProbeError when the child that runs it takes too long.
    """

    def work(capstone: Any, write: unprivileged.Write) -> None:
        write(decode(capstone))

    bounds = unprivileged.BOUNDS._replace(seconds=SECONDS)
    answer = unprivileged.run("decoding a function", "capstone", work, 4 * most, bounds)
    numbers = array("I")
    numbers.frombytes(answer[: len(answer) & ~3])
    return numbers


def _unanswered() -> ProbeError:
    why = "the disassembler ended without an answer"
    return ProbeError(why, "pip install capstone, or trace the function's start")


def engine_of(capstone: Any, arch: str | None) -> Any:
    """A disassembler for x86_64, or else for arm64."""
    if arch == "x86_64":
        return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)


def _decode(capstone: Any, code: bytes) -> bytes:
    """Numbers: where instructions begin, a mark, which of these are in another one, a mark."""
    arch = kernel.arch() or ""
    engine = engine_of(capstone, arch)
    sizes: dict[int, int] = {}
    waiting = [0]
    while waiting:
        for address, size, mnemonic, operands in _line(engine, code, waiting.pop()):
            if address in sizes:
                break
            sizes[address] = size
            targets, goes_on = _next(arch, mnemonic, operands, len(code))
            waiting += targets
            if not goes_on:
                break
    starts = array("I", sizes)
    inner = [
        at for start, size in sizes.items() for at in range(start + 1, start + size) if at in sizes
    ]
    mark = array("I", [_MARK])
    return (starts + mark + array("I", inner) + mark).tobytes()


def _line(engine: Any, code: bytes, at: int) -> Iterator[tuple[int, int, str, str]]:
    """Instructions one behind the other, up to the first that is none."""
    before = -1
    while before < at < len(code):
        before = at
        for one in engine.disasm_lite(code[at : at + _CHUNK], at):
            at += one[1]
            yield one


def _next(arch: str, mnemonic: str, operands: str, size: int) -> tuple[list[int], bool]:
    """Where an instruction leads to within the code, and whether to the one behind it too."""
    name = mnemonic.split()[-1]  # behind "bnd", "notrack" and the like
    found = _TARGET.fullmatch(operands)
    inside = [target] if found and (target := int(found[1], 0)) < size else []
    if name == _CALLS[arch]:
        # One that stays in the function may never return, as in retpolines.
        return (inside, False) if any(inside) else ([], True)
    jumps = _JUMPS[arch].fullmatch(name) is not None
    return (inside if jumps else []), _ENDS[arch].fullmatch(name) is None
