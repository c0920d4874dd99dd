# SPDX-License-Identifier: Apache-2.0
"""Tries whether a process that filters its system calls survives a return probe.

From Linux 6.11 on, x86_64 returns by a system call of its own, and until 6.14 (or an update of
the kernel before it) seccomp ends the process whose filter does not know that call.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from contextlib import suppress
from functools import cache

from probes import bpfsys, btf, empty, kernel
from probes.attach import Attacher
from probes.base import Attach, ProbeError
from probes.syscall_names import nr_of
from probes.trials import Unavailable

_CALLS = (335, 336)
"""uretprobe and uprobe of x86_64."""
_NO_NEW_PRIVS = 38
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_WORKED = 7


def passes_filters() -> str:
    """Runs a function with a return probe where its system call is forbidden, in a child."""
    if kernel.arch() != "x86_64":
        return "return by no system call here"
    try:
        place, function = empty.function(empty.PUSH)
    except ProbeError as error:
        raise Unavailable(error.why) from error
    multi = btf.KernelBTF().enumerator("bpf_attach_type", "BPF_TRACE_UPROBE_MULTI") is not None
    attacher = Attacher(lambda name: bpfsys.RETURN_0, lambda name: None, multi)
    link = -1
    try:
        link = attacher.attach(Attach(kind="uretprobe", function="f", path=place.path, offset=0))
        status = _run(function)
    except ProbeError as error:
        raise Unavailable(error.why) from error
    finally:
        attacher.forget()
        if link >= 0:
            os.close(link)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGSYS, signal.SIGSEGV):
        raise Unavailable("a process that filters system calls was ended by a return probe")
    if not os.WIFEXITED(status) or os.WEXITSTATUS(status) != _WORKED:
        raise Unavailable("a process that filters system calls could not be made")
    return "a process that filters system calls goes on"


@cache
def harmless() -> bool:
    """Whether the trial went well."""
    try:
        passes_filters()
    except (Unavailable, OSError):
        return False
    return True


def _run(function: object) -> int:
    """The wait status of a child that forbids the calls and runs the function."""
    assert callable(function)
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            if _forbid():
                function()
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
