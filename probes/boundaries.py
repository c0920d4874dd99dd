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

import ctypes
import os
import re
import resource
import select
import signal
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from probes import file_access, kernel, privileges
from probes.base import ProbeError
from probes.near import quote
from probes.open_file import OpenFile

MOST_CODE = 256 << 10
"""Bytes of a function that are decoded to prove an offset in it."""
MEMORY, CPU_SECONDS, SECONDS = 512 << 20, 5, 5.0
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
_PR_SET_PDEATHSIG = 1
_MARK = 0xFFFFFFFF
_STANDARD = 3


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
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _be_child(writing, decode)
    os.close(writing)
    try:
        answer = _answer(pid, reading, 4 * most)
    finally:
        os.close(reading)
    numbers = array("I")
    numbers.frombytes(answer[: len(answer) & ~3])
    return numbers


def _unanswered() -> ProbeError:
    why = "the disassembler ended without an answer"
    return ProbeError(why, "pip install capstone, or trace the function's start")


def _answer(pid: int, reading: int, most: int) -> bytes:
    """What the child writes; it has ended when this returns. Raises ProbeError."""
    pidfd = os.pidfd_open(pid)
    parts: list[bytes] = []
    last = time.monotonic() + SECONDS
    try:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        while most > 0 and (left := last - time.monotonic()) > 0 and poll.poll(1000 * left):
            part = os.read(reading, min(most, 1 << 16))
            if not part:
                return b"".join(parts)
            parts.append(part)
            most -= len(part)
        why = f"decoding a function took longer than {SECONDS:g} seconds"
        raise ProbeError(why, "trace the function's start")
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


def _be_child(writing: int, decode: Callable[[Any], bytes]) -> None:
    """Decode without any privilege, and end. Never returns."""
    with suppress(BaseException):
        import capstone

        _confine(writing)
        answer = decode(capstone)
        while answer:
            answer = answer[os.write(writing, answer) :]
    os._exit(0)


def _confine(writing: int) -> None:
    """Keep one descriptor, little memory and no privileges."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(_STANDARD):
        os.dup2(null, number)
    os.closerange(_STANDARD, writing)
    os.closerange(writing + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1] & 0xFFFFF)
    limits = {
        resource.RLIMIT_AS: max(MEMORY, _address_space() + (MEMORY >> 2)),
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for which, value in limits.items():
        resource.setrlimit(which, (value, value))
    if os.geteuid() == 0:
        privileges.drop(privileges.User(privileges.NOBODY, privileges.NOBODY, None))
    # Changing the user forgets this.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _address_space() -> int:
    """Bytes of address space in use, of which a loader with a compiler in it has much."""
    pages = (kernel.read_text("/proc/self/statm") or "0").split()[0]
    return int(pages) * resource.getpagesize()


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
