# SPDX-License-Identifier: Apache-2.0
"""A seccomp filter for processes without privileges: an allow list of system calls.

Whatever is not on the list fails with EPERM, or with ENOSYS where a C library has another way to
do it; nothing is killed. The filter holds for all threads and for everything that is started
later. It compares the lower halves of arguments that the kernel takes as int.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable

from probes.core import kernel
from probes.core.syscall_names import X32_BIT, nr_of, table

AUDIT_ARCH = {"x86_64": 0xC000003E, "arm64": 0xC00000B7}
SET_MODE_FILTER, GET_ACTION_AVAIL = 1, 2
FLAG_TSYNC, FLAG_SPEC_ALLOW = 1, 4
"""All threads at once; no slow-down of speculation, which matters to code of strangers only."""
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000
# Codes of classic BPF: load a word, compare, test bits, return.
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCH, ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data."""

FREQUENT = (
    "read write futex epoll_wait epoll_pwait clock_nanosleep mmap munmap madvise openat close "
    "lseek newfstatat fstat rt_sigprocmask recvmsg recvfrom ppoll"
)
"""Compared first: kernels before 5.11 run the filter for every call."""
ALLOWED = f"""
    {FREQUENT}
    readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 sendfile splice tee
    copy_file_range close_range dup dup2 dup3 flock fsync fdatasync sync_file_range
    ftruncate fallocate fadvise64 readahead open creat openat2 stat lstat statx statfs fstatfs
    access faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd chdir fchdir umask
    rename renameat renameat2 unlink unlinkat utimensat
    brk mprotect mremap msync mincore mlock mlock2 munlock membarrier mseal
    get_mempolicy map_shadow_stack
    futex_waitv futex_wait futex_wake futex_requeue set_robust_list get_robust_list
    set_tid_address rseq exit exit_group restart_syscall arch_prctl
    getpid gettid getppid getpgrp getpgid getsid getuid geteuid getgid getegid getresuid getresgid
    getgroups getpriority capget
    clock_gettime clock_getres gettimeofday time times nanosleep alarm pause getitimer setitimer
    timer_create timer_settime timer_gettime timer_getoverrun timer_delete
    timerfd_create timerfd_settime timerfd_gettime
    getrusage getrlimit setrlimit sysinfo uname getrandom getcpu
    sched_yield sched_getaffinity sched_getscheduler sched_getparam sched_getattr
    sched_get_priority_max sched_get_priority_min sched_rr_get_interval
    rt_sigaction rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack
    signalfd signalfd4 wait4 waitid
    poll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_pwait2 eventfd eventfd2
    pipe pipe2 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch pidfd_open
    shutdown getsockname getpeername getsockopt setsockopt
"""
SENDING = {"sendmsg": 2, "sendto": 3}
"""Calls that send, and which argument has their flags."""
MSG_FASTOPEN = 0x20000000
"""Connects a TCP socket, also one that listened until it was shut down."""
SERVING = "accept accept4 listen"
"""Also allowed to a process that answers on a socket which it was started with."""
MISSING = "clone3"
"""Said not to be there: the C library takes clone then, whose flags can be looked at."""

# The terminal's own, without those that type (TIOCSTI), select and paste (TIOCLINUX), stop its
# output also for who comes after (TCXONC), or give it or its line discipline to something else.
IOCTLS = (
    *(*range(0x5401, 0x540A), 0x540B),  # TCGETS to TCFLSH: attributes, drain, flush
    *(0x540F, 0x5411, 0x5413, 0x5414),  # which process group, output queue, size
    *(0x541B, 0x5421, 0x5429, 0x5450, 0x5451),  # FIONREAD, FIONBIO, TIOCGSID, FIONCLEX, FIOCLEX
    *(0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D),  # the same attributes as termios2
)
FCNTLS = (
    *(fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL),
    *(5, 6, 7, 36, 37, 38),  # F_GETLK to F_SETLKW, and the same for open files
    *(1031, 1032, 1033, 1034),  # sizes of pipes, seals of memory files
)
"""Without those that send signals (F_SETOWN, F_SETSIG) or hold up others (F_SETLEASE, F_NOTIFY)."""
O_ASYNC = 0o20000
SOCKET_PAIRS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
"""A pair of datagram sockets can send to any other one, by its path."""
CLONE_THREAD = 0x00010000
NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000
NEW_NAMESPACES |= 0x40000000
PRCTLS = (
    *(1, 2, 3, 7, 15, 16, 21, 23, 27, 30, 38, 39, 40, 41, 42),
    0x53564D41,  # PR_SET_VMA: names of memory areas
)
"""Reading, names of threads and memory, the signal on a parent's death, no new privileges."""


def _instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value & 0xFFFFFFFF)


def _fail(number: int) -> bytes:
    return _instruction(RETURN, RET_ERRNO | number)


_ALLOW = _instruction(RETURN, RET_ALLOW)


def _one_of(values: Iterable[int]) -> bytes:
    """Allow the call if the loaded word is one of these."""
    return b"".join(_instruction(EQUAL, value, 0, 1) + _ALLOW for value in values)


def _load(argument: int) -> bytes:
    """The lower half of an argument becomes the loaded word."""
    return _instruction(LOAD, ARGUMENTS + 8 * argument)


def _only(arch: str, name: str, argument: int, body: bytes) -> bytes:
    """Decide about one call by the lower half of an argument; what `body` leaves fails."""
    number = nr_of(name, arch)
    if number is None:
        return b""
    body = _load(argument) + body + _fail(errno.EPERM)
    return _instruction(EQUAL, number, 0, len(body) // 8) + body


def _status_flags() -> bytes:
    """F_SETFL without O_ASYNC, which on a terminal sends signals to its process group."""
    body = _load(2) + _instruction(ANY_BIT, O_ASYNC, 1, 0) + _ALLOW + _fail(errno.EPERM)
    return _instruction(EQUAL, fcntl.F_SETFL, 0, len(body) // 8) + body


def _pairs() -> bytes:
    """Unix socket pairs of these types, with or without the flags that a type can carry."""
    flags = (0, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK)
    types = {kind | a | b for kind in SOCKET_PAIRS for a in flags for b in flags}
    body = _load(1) + _one_of(sorted(types)) + _fail(errno.EPERM)
    return _instruction(EQUAL, socket.AF_UNIX, 0, len(body) // 8) + body


def program(arch: str, pid: int, group: int, *, serves: bool = False) -> bytes:
    """The filter of an architecture for a process that may signal itself and its group.

    One that `serves` may accept connections; none may make any.
    """
    names = table(arch)
    words = [*ALLOWED.split(), *(SERVING.split() if serves else ())]
    allowed = [n for name in words if (n := nr_of(name, arch)) is not None]
    missing = [n for name in MISSING.split() if (n := nr_of(name, arch)) is not None]
    parts = [
        _instruction(LOAD, ARCH),
        _instruction(EQUAL, AUDIT_ARCH[arch], 1, 0),
        _fail(errno.EPERM),
        _instruction(LOAD, NUMBER),
    ]
    if arch == "x86_64":
        parts += [_instruction(AT_LEAST, X32_BIT, 0, 1), _fail(errno.EPERM)]
    sent = _instruction(ANY_BIT, MSG_FASTOPEN, 1, 0) + _ALLOW
    threads = _instruction(ANY_BIT, NEW_NAMESPACES, 2, 0)
    threads += _instruction(ANY_BIT, CLONE_THREAD, 0, 1) + _ALLOW
    # They are frequent, too.
    parts += [_only(arch, name, argument, sent) for name, argument in SENDING.items()]
    parts += [
        _one_of(allowed),
        _only(arch, "ioctl", 1, _one_of(IOCTLS)),
        _only(arch, "clone", 0, threads),
        _only(arch, "fcntl", 1, _one_of(FCNTLS) + _status_flags()),
        _only(arch, "socketpair", 0, _pairs()),
        _only(arch, "prctl", 0, _one_of(PRCTLS)),
        _only(arch, "prlimit64", 0, _one_of([0, pid])),
        _only(arch, "tgkill", 0, _one_of([pid])),
        _only(arch, "kill", 0, _one_of([0, pid, -group])),
    ]
    parts += [_instruction(EQUAL, n, 0, 1) + _fail(errno.ENOSYS) for n in missing]
    # What is newer than this list: the C library knows older ways.
    parts += [_instruction(AT_LEAST, max(names) + 1, 0, 1), _fail(errno.ENOSYS)]
    return b"".join([*parts, _fail(errno.EPERM)])


def available() -> bool:
    """Whether this kernel has filters that let calls fail."""
    number = nr_of("seccomp", kernel.machine())
    if number is None:
        return False
    action = ctypes.c_uint32(RET_ERRNO)
    words = [ctypes.c_long(word) for word in (number, GET_ACTION_AVAIL, 0)]
    return int(ctypes.CDLL(None).syscall(*words, ctypes.byref(action))) == 0


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(*, serves: bool = False) -> str | None:
    """Filter all threads of this process for good; why not, where this kernel cannot.

    `serves` is whether it accepts connections on a socket that it has. Needs no_new_privs or
    CAP_SYS_ADMIN. Raises OSError for any other refusal.
    """
    arch = kernel.arch()
    number = nr_of("seccomp", arch) if arch is not None else None
    if arch is None or number is None:
        return f"there is no filter for {kernel.machine()}"
    code = program(arch, os.getpid(), os.getpgrp(), serves=serves)
    filled = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    flags = FLAG_TSYNC | FLAG_SPEC_ALLOW
    result = libc.syscall(
        ctypes.c_long(number),
        ctypes.c_ulong(SET_MODE_FILTER),
        ctypes.c_ulong(flags),
        ctypes.byref(filled),
    )
    if result == 0:
        return None
    error = ctypes.get_errno()
    if error in (errno.ENOSYS, errno.EINVAL):
        return "this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)"
    if error in (errno.EPERM, errno.EACCES):
        return f"seccomp filters are refused here ({os.strerror(error)})"
    raise OSError(error or errno.ESRCH, os.strerror(error or errno.ESRCH))
