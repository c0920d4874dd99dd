# SPDX-License-Identifier: Apache-2.0
"""Tries whether this kernel's probes of user space harm the programs that they are in.

From Linux 6.11 on, x86_64 returns by a system call of its own, and until 6.14 (or an update of
the kernel before it) seccomp ends the process whose filter does not know that call. From 6.18 on,
a probe in place of a 5-byte nop becomes a call: that writes below the stack pointer, where a
function that calls nobody may keep something, and a child of fork does not have what is called.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from typing import Any, Literal

from probes.bpf import bpf_syscall, btf
from probes.bpf.attach import Attacher
from probes.bpf.plan import Attach
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.syscall_names import nr_of
from probes.uprobes import empty_functions
from probes.uprobes.kernel_trials import Unavailable

_CALLS = (335, 336)
"""uretprobe and uprobe of x86_64."""
_NO_NEW_PRIVS, _SET_DUMPABLE = 38, 4
NOP5 = b"\x0f\x1f\x44\x00\x00"
_CALL, _TURNS = 0xE8, 10
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_WORKED = 7


def passes_filters() -> str:
    """Runs a function with a return probe where its system call is forbidden, in a child."""
    if kernel.arch() != "x86_64":
        return "return by no system call here"
    with _attached("uretprobe", empty_functions.PUSH) as function:
        status = _run(lambda: _forbid() and function())
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGSYS, signal.SIGSEGV):
        raise Unavailable("a process that filters system calls was ended by a return probe")
    if not os.WIFEXITED(status) or os.WEXITSTATUS(status) != _WORKED:
        raise Unavailable("a process that filters system calls could not be made")
    return "a process that filters system calls goes on"


def survives_fork() -> str:
    """Runs a function that begins with a 5-byte nop in a process and in its child."""
    if kernel.arch() != "x86_64":
        return "no nop becomes a call here"
    with _attached("uprobe", empty_functions.NOP5) as function:
        for _ in range(_TURNS):
            function()
        status = _run(function)
    if os.WIFSIGNALED(status):
        raise Unavailable("a child of fork was ended by a probe at a 5-byte nop")
    return "a child of fork goes on"


@cache
def turns_nops_into_calls() -> bool:
    """Whether a probe in place of a 5-byte nop becomes a call; True where that is not known."""
    if kernel.arch() != "x86_64":
        return False
    try:
        with _attached("uprobe", empty_functions.NOP5) as function:
            for _ in range(_TURNS):
                function()
            address = ctypes.cast(function, ctypes.c_void_p).value or 0
            return ctypes.string_at(address, 1)[0] == _CALL
    except (Unavailable, OSError):
        return True


@contextmanager
def _attached(kind: Literal["uprobe", "uretprobe"], code: str) -> Iterator[Any]:
    """An empty function with a program on it; raises Unavailable, OSError."""
    multi = btf.KernelBTF().enumerator("bpf_attach_type", "BPF_TRACE_UPROBE_MULTI") is not None
    attacher = Attacher(lambda name: bpf_syscall.RETURN_0, lambda name: None, multi)
    with ExitStack() as stack:
        stack.callback(attacher.forget)
        try:
            place, function = empty_functions.function(code)
            stack.callback(empty_functions.release, place, function)
            wish = Attach(kind=kind, function="f", path=place.path, offset=0)
            stack.callback(os.close, attacher.attach(wish))
        except ProbeError as error:
            raise Unavailable(error.why) from error
        yield function


@cache
def harmless(trial: Callable[[], str]) -> bool:
    """Whether a trial went well."""
    try:
        trial()
    except (Unavailable, OSError):
        return False
    return True


def _run(work: Callable[[], object]) -> int:
    """The wait status of a child that does something: _WORKED, unless it returned False."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            # Where it fails, neither a handler shall speak nor a core be left.
            for number in (signal.SIGSEGV, signal.SIGTRAP):
                signal.signal(number, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
            if work() is not False:
                os._exit(_WORKED)
        os._exit(1)
    return os.waitpid(pid, 0)[1]


def _forbid() -> bool:
    """End this process at any of the calls; False where that is refused."""
    code = [(_LOAD, 0, 0, 0)]
    code += [line for n in _CALLS for line in ((_EQUAL, 0, 1, n), (_RETURN, 0, 0, _KILL))]
    code += [(_RETURN, 0, 0, _ALLOW)]
    text = b"".join(struct.pack("=HBBI", *line) for line in code)
    held = ctypes.create_string_buffer(text)
    words = struct.pack("@HxxxxxxQ", len(code), ctypes.addressof(held))
    libc = ctypes.CDLL(None)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    number = nr_of("seccomp", "x86_64")
    return number is not None and libc.syscall(ctypes.c_long(number), 1, 0, words) == 0
