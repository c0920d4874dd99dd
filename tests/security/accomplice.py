# SPDX-License-Identifier: Apache-2.0
"""Attacks in which the unprivileged side helps another process of its user.

That process is not confined, and lives on when probetop has ended: it wants the terminal, to read
what root types, and signals that reach further than a confined process may send them.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import resource
import shutil
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from probes.core import kernel
from probes.core.syscall_names import nr_of
from tests.security.attack import Attack, as_user
from tests.security.prey import Prey

F_SETSIG, F_SETOWN_EX, F_OWNER_PID, O_ASYNC = 10, 15, 1, 0o20000
PTRACE_ATTACH = 16
MANY = 5000
"""More open files than a process without privileges needs."""


@contextmanager
def sockets(folder: Path) -> Iterator[list[socket.socket]]:
    """Where descriptors are taken: a listening socket, and one for datagrams."""
    kinds = {"stream": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM}
    made = [socket.socket(socket.AF_UNIX, kind) for kind in kinds.values()]
    try:
        for name, sock in zip(kinds, made, strict=True):
            sock.bind(str(folder / name))
            os.chmod(folder / name, 0o666)
            sock.setblocking(False)
        made[0].listen()
        yield made
    finally:
        for sock in made:
            sock.close()


def takes(uid: int, confined: bool) -> str:
    """How another process of this user gets the terminal that a process was started in."""
    folder = Path(tempfile.mkdtemp(prefix="probetop-meeting-", dir="/tmp"))
    folder.chmod(0o755)
    controller, terminal = os.openpty()
    told, end = os.pipe(), os.pipe()
    try:
        with sockets(folder) as meeting:
            pid = os.fork()
            if pid == 0:
                with suppress(BaseException):
                    os.close(end[1])
                    as_user(uid, lambda: _offers(folder, terminal, told[1], end[0]), confined)
                os._exit(0)
            os.close(told[1])
            helper = int(os.read(told[0], 20))
            found = _collected(meeting) or as_user(uid, lambda: _reaches(helper), False)
            os.close(end[1])
            os.waitpid(pid, 0)
            return found
    finally:
        for fd in (controller, terminal, told[0], end[0]):
            os.close(fd)
        shutil.rmtree(folder)


def _offers(folder: Path, terminal: int, told: int, end: int) -> str:
    """The one with the terminal offers it in every way, and lives until it is told to end."""
    os.dup2(terminal, 0)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))]
    stream, datagram = str(folder / "stream"), str(folder / "datagram")
    with suppress(OSError):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(stream)
        sock.sendmsg([b"connected"], rights)
    with suppress(OSError):
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendmsg([b"sent"], rights, 0, datagram)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
        with suppress(OSError):
            ours, _theirs = socket.socketpair(socket.AF_UNIX, kind)
            ours.sendmsg([b"sent by a pair"], rights, 0, datagram)
    with suppress(OSError):
        # A pair's end that is connected to somebody else.
        ours, _theirs = socket.socketpair(socket.AF_UNIX)
        ours.connect(stream)
        ours.sendmsg([b"connected a pair"], rights)
    os.write(told, b"%d" % os.getpid())
    os.read(end, 1)
    return ""


def _collected(meeting: list[socket.socket]) -> str:
    """What came to these sockets with a descriptor of a terminal."""
    ends = [meeting[1]]
    with suppress(BlockingIOError):
        while True:
            ends.append(meeting[0].accept()[0])
    for end in ends:
        with suppress(BlockingIOError):
            end.setblocking(False)
            data, fds, _, _ = socket.recv_fds(end, 100, 4)
            if any(os.isatty(fd) for fd in fds):
                return data.decode()
    return ""


def _call(name: str, *arguments: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    number = nr_of(name, kernel.machine())
    assert number is not None
    result = int(libc.syscall(*[ctypes.c_long(word) for word in (number, *arguments, 0)]))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _reaches(helper: int) -> str:
    """The terminal of a process that does nothing against it."""
    with suppress(OSError):
        if os.isatty(_call("pidfd_getfd", os.pidfd_open(helper), 0)):
            return "taken by pidfd_getfd"
    with suppress(OSError):
        if os.isatty(os.open(f"/proc/{helper}/fd/0", os.O_RDONLY | os.O_NOCTTY)):
            return "opened below /proc"
    with suppress(OSError):
        _call("ptrace", PTRACE_ATTACH, helper, 0)
        return "traced"
    return ""


def confined_signals_of_files(prey: Prey) -> str:
    """The kernel signals another process when something happens to a file of ours."""
    owner = struct.pack("=ii", F_OWNER_PID, os.getppid())
    ours, _ = socket.socketpair()
    for name, command, argument in (
        ("F_SETOWN", fcntl.F_SETOWN, os.getppid()),
        ("F_SETOWN of a group", fcntl.F_SETOWN, -os.getpgrp()),
        ("F_SETOWN_EX", F_SETOWN_EX, owner),
        ("F_SETSIG", F_SETSIG, 15),
        ("F_SETLEASE", fcntl.F_SETLEASE, fcntl.F_UNLCK),
        ("O_ASYNC", fcntl.F_SETFL, O_ASYNC),
    ):
        for fd in (ours.fileno(), prey.terminal):
            with suppress(OSError):
                fcntl.fcntl(fd, command, argument)
                return f"{name} was allowed"
    return ""


def confined_hoard_of_descriptors(prey: Prey) -> str:
    """As many open files as the hard limit of whoever started it allows."""
    held = list[int]()
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * MANY, 2 * MANY))
    with suppress(OSError):
        while len(held) < MANY:
            held.append(os.dup(0))
    for fd in held:
        os.close(fd)
    return f"{len(held)} are open" if len(held) == MANY else ""


ATTACKS = [
    Attack(work.__name__.replace("_", " "), work)
    for work in (confined_signals_of_files, confined_hoard_of_descriptors)
]
