# SPDX-License-Identifier: Apache-2.0
"""A Landlock domain for processes without privileges: what their user may do, and they may not.

Inside of it no process outside can be traced or have its memory read, no program can be started,
and files are written only where that is asked for. Newer kernels also refuse connections by TCP
(Linux 6.7), and signals and abstract Unix sockets to the outside (Linux 6.12).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from probes.core import kernel
from probes.core.syscall_names import nr_of

GET_VERSION = 1
PATH_BENEATH = 1
# Rights on files, include/uapi/linux/landlock.h.
EXECUTE, WRITE_FILE = 1 << 0, 1 << 1
REMOVE = 1 << 4 | 1 << 5
MAKE_DEVICES = 1 << 6 | 1 << 11
MAKE = MAKE_DEVICES | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
TCP_BIND_AND_CONNECT = 0b11
ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
SINKS = (os.devnull, "/dev/tty")
"""Written also by those that may write nothing else."""


def version() -> int:
    """The version of the kernel's Landlock interface; raises OSError where there is none."""
    return _call("landlock_create_ruleset", None, 0, GET_VERSION)


def restrict(*, writes: bool) -> str | None:
    """Confine this thread, and what it starts, for good; why not, where the kernel cannot.

    `writes`: whether files may be written wherever the user may. Needs no_new_privs, and has to
    run before other threads start. Raises OSError where a kernel that can refuses.
    """
    try:
        found = version()
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return f"Landlock is refused here ({error.strerror})"
        return "this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, lsm=landlock)"
    files = EXECUTE | MAKE_DEVICES
    if not writes:
        files |= WRITE_FILE | REMOVE | MAKE
        files |= REFER if found >= 2 else 0
        files |= TRUNCATE if found >= 3 else 0
        files |= IOCTL_DEV if found >= 5 else 0
    net = TCP_BIND_AND_CONNECT if found >= 4 else 0
    scoped = ABSTRACT_SOCKETS_AND_SIGNALS if found >= 6 else 0
    size = 24 if found >= 6 else 16 if found >= 4 else 8
    attributes = struct.pack("=QQQ", files, net, scoped)[:size]
    rules = _call("landlock_create_ruleset", attributes, size, 0)
    try:
        for path in () if writes else SINKS:
            _allow(rules, path, files & (WRITE_FILE | TRUNCATE | IOCTL_DEV))
        _call("landlock_restrict_self", rules, 0)
    finally:
        os.close(rules)
    return None


def _allow(rules: int, path: str, rights: int) -> None:
    """Except a path, if it is there."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        _call("landlock_add_rule", rules, PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)


def _call(name: str, *arguments: int | bytes | None) -> int:
    """A system call; raises OSError."""
    number = nr_of(name, kernel.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
