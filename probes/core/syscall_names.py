# SPDX-License-Identifier: Apache-2.0
"""Names of system calls and of errors.

The tables lie in probes/data as text, written by probes/data/generate.py; one is read
(about 0.2 ms) when a name of its architecture is first asked for.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from functools import cache

from probes import FOLDER

DATA = FOLDER / "data"
ALIASES = {"aarch64": "arm64", "amd64": "x86_64"}
COMPAT = {"x86_64": "i386", "arm64": "arm"}
X32_BIT = 0x40000000
X32_FIRST = 512
"""x32 calls from this number on have their own names; those below share the 64-bit ones."""

BY_SIGSYS = 4096 + 31
"""Behind all errnos: seccomp answered the call by a signal, to a handler or to death."""

# Where stdlib's errno has another name than the kernel's sources, or none at all.
KERNEL_ERRNOS = {
    11: "EAGAIN",
    35: "EDEADLK",
    95: "EOPNOTSUPP",
    126: "ENOKEY",
    127: "EKEYEXPIRED",
    128: "EKEYREVOKED",
    129: "EKEYREJECTED",
    132: "ERFKILL",
    133: "EHWPOISON",
    # include/linux/errno.h: never returned to a program, but seen by a tracepoint.
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    515: "ENOIOCTLCMD",
    516: "ERESTART_RESTARTBLOCK",
    517: "EPROBE_DEFER",
    518: "EOPENSTALE",
    519: "ENOPARAM",
    521: "EBADHANDLE",
    522: "ENOTSYNC",
    523: "EBADCOOKIE",
    524: "ENOTSUPP",
    525: "ETOOSMALL",
    526: "ESERVERFAULT",
    527: "EBADTYPE",
    528: "EJUKEBOX",
    529: "EIOCBQUEUED",
    530: "ERECALLCONFLICT",
    531: "ENOGRACE",
    BY_SIGSYS: "SIGSYS",
}


@cache
def table(arch: str) -> Mapping[int, str]:
    """Names by number for x86_64, i386, arm64, arm or x32; empty for any other `arch`."""
    names: dict[int, str] = {}
    try:
        text = (DATA / f"{arch}.txt").read_text(encoding="utf-8")
    except FileNotFoundError:
        return names
    for line in text.splitlines():
        if not line.startswith("#"):
            first, *calls = line.split()
            names.update(enumerate(calls, int(first)))
    return names


@cache
def _numbers(arch: str) -> Mapping[str, int]:
    return {name: number for number, name in table(arch).items()}


def name_of(nr: int, compat: bool, arch: str) -> str:
    """The name of system call `nr` as the machine `arch` (as uname says it) numbers it.

    A 32-bit call on a 64-bit kernel (`compat`) is "compat:read", an x32 one "x32:read";
    a number without a name is "syscall_999".
    """
    arch = ALIASES.get(arch, arch)
    prefix, base, names = "", nr, table(arch)
    if compat:
        prefix, names = "compat:", table(COMPAT.get(arch, ""))
    elif arch == "x86_64" and nr >= 0 and nr & X32_BIT:
        prefix, base = "x32:", nr ^ X32_BIT
        names = names if base < X32_FIRST else table("x32")
    return prefix + (names.get(base) or f"syscall_{base}")


def nr_of(name: str, arch: str) -> int | None:
    """The number of a native system call on the machine `arch`, None if it has no such."""
    return _numbers(ALIASES.get(arch, arch)).get(name)


def errno_name(number: int) -> str:
    """The name of an error: "EAGAIN" for 11, "errno_999" for a number without one.

    These are the numbers of x86 and Arm, and those that the kernel uses only inside.
    """
    return KERNEL_ERRNOS.get(number) or errno.errorcode.get(number) or f"errno_{number}"
