# SPDX-License-Identifier: Apache-2.0
"""The filter of system calls, installed in a child: what it refuses, and what goes on."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import mmap
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.syscall_names import nr_of, table
from probes.host import seccomp
from tests.unit.confined import in_child

PR_SET_NO_NEW_PRIVS = 38
LIBC = ctypes.CDLL(None, use_errno=True)
ARCH = kernel.arch() or "x86_64"
TIOCLINUX = 0x541C

_REFUSED = """
    bpf perf_event_open ptrace process_vm_readv process_vm_writev mount umount2 move_mount
    fsopen fsmount fsconfig open_tree mount_setattr pivot_root chroot userfaultfd io_uring_setup
    io_uring_enter io_uring_register add_key keyctl request_key kexec_load kexec_file_load
    init_module finit_module delete_module unshare setns pidfd_getfd pidfd_send_signal
    open_by_handle_at name_to_handle_at personality execve execveat fork vfork bind tkill
    setuid setresuid setgroups capset seccomp reboot swapon quotactl acct syslog settimeofday
    clock_settime iopl ioperm mknod mknodat chmod chown fchown symlink vhangup modify_ldt
    sethostname setdomainname process_madvise kcmp lookup_dcookie msgget semget shmget setsid
    setpgid landlock_restrict_self rt_sigqueueinfo rt_tgsigqueueinfo
    socket connect accept accept4 listen sendmmsg fchmod memfd_create
"""
REFUSED = _REFUSED.split()


@pytest.fixture(autouse=True)
def _filters() -> None:
    """Skip where the kernel has no filters."""
    if "\nSeccomp:" not in Path("/proc/self/status").read_text():
        pytest.skip("this kernel has no seccomp")


def confine(serves: bool = False) -> None:
    """Install the filter."""
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    assert seccomp.install(serves=serves) is None


def call(name: str, *arguments: int | bytes) -> Callable[[], int]:
    """A system call by its name, to be made later."""

    def make() -> int:
        number = nr_of(name, ARCH)
        if number is None:
            raise PermissionError(errno.EPERM, "no such call here")
        words = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in (*arguments, 0, 0, 0)]
        result = int(LIBC.syscall(ctypes.c_long(number), *words[:6]))
        if result < 0:
            raise OSError(ctypes.get_errno(), "")
        return result

    return make


def test_each_call_with_power_over_others_is_refused() -> None:
    # No descriptor and no process has this number, should the filter let a call through.
    outcomes = in_child(confine, [call(name, *[-1] * 6) for name in REFUSED])
    assert dict(zip(REFUSED, outcomes, strict=True)) == dict.fromkeys(REFUSED, "EPERM")


def test_the_same_calls_are_refused_by_the_filter_and_by_nothing_else() -> None:
    """Without it, some of them would have been carried out or found arguments to complain of."""
    names = ["unshare", "personality", "setsid", "userfaultfd", "ptrace"]
    outcomes = in_child(lambda: None, [call(name) for name in names])
    assert outcomes.count("EPERM") < 3


def test_it_is_on_for_all_threads_and_is_a_filter() -> None:
    def status() -> None:
        for thread in os.listdir("/proc/self/task"):
            text = Path(f"/proc/self/task/{thread}/status").read_text()
            if "\nSeccomp:\t2\n" not in text:
                raise OSError(errno.EIO, "")

    def with_a_thread_already() -> None:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        confine()
        assert len(os.listdir("/proc/self/task")) == 2

    assert in_child(with_a_thread_already, [status]) == ["ok"]


def test_threads_may_be_made_and_processes_and_namespaces_not() -> None:
    new_user_thread = 0x10000000 | seccomp.CLONE_THREAD
    tries: list[Callable[[], object]] = [
        lambda: threading.Thread(target=int).start(),
        os.fork,
        call("clone", signal.SIGCHLD),
        call("clone", new_user_thread),
        call("clone3"),
        lambda: subprocess.run(["true"], check=False),
    ]
    assert in_child(confine, tries) == ["ok", "EPERM", "EPERM", "EPERM", "ENOSYS", "EPERM"]


@pytest.fixture
def terminal() -> Iterator[int]:
    """The program's end of a terminal."""
    master, slave = pty.openpty()
    yield slave
    os.close(slave)
    os.close(master)


def _take(terminal: int) -> None:
    """Make a terminal the controlling one of a new session."""
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_nothing_is_typed_into_the_terminal(terminal: int) -> None:
    """Neither with the number that the kernel knows, nor with bits that it does not look at."""

    def leading() -> None:
        _take(terminal)
        confine()

    numbers = [termios.TIOCSTI, TIOCLINUX, termios.TIOCSCTTY, termios.TIOCSETD, termios.TIOCCONS]
    numbers += [number | high << 32 for number in numbers[:2] for high in (1, 0xFFFFFFFF)]
    tries = [call("ioctl", terminal, number, b"x\0\0\0\0\0\0\0") for number in numbers]
    assert set(in_child(leading, tries)) == {"EPERM"}
    free = in_child(lambda: _take(terminal), tries[:1] + tries[5:6])
    # The kernel does it, or says EIO where it does that for nobody any more (legacy_tiocsti).
    assert set(free) <= {"ok", "EIO"}


def test_the_terminals_output_is_not_stopped(terminal: int) -> None:
    """It would stay so for the shell, also when this process is gone."""

    def leading() -> None:
        _take(terminal)
        confine()

    tries = [call("ioctl", terminal, 0x540A, termios.TCOON)]
    assert in_child(leading, tries) == ["EPERM"]
    assert in_child(lambda: _take(terminal), tries) == ["ok"]


def test_the_terminal_can_be_used(terminal: int) -> None:
    def leading() -> None:
        _take(terminal)
        confine()

    def size() -> None:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("=4H", 10, 20, 0, 0))
        assert os.get_terminal_size(terminal) == (20, 10)

    def attributes() -> None:
        found = termios.tcgetattr(terminal)
        for when in (termios.TCSANOW, termios.TCSADRAIN, termios.TCSAFLUSH):
            termios.tcsetattr(terminal, when, found)
        termios.tcflush(terminal, termios.TCIFLUSH)

    tries = [size, attributes, lambda: os.tcgetpgrp(terminal)]
    assert in_child(leading, [*tries, lambda: os.isatty(terminal) or os.abort()]) == ["ok"] * 4


def test_a_job_does_not_take_the_terminal_back(terminal: int) -> None:
    """Once a shell has it again, keys are the shell's."""

    def leading() -> None:
        _take(terminal)
        confine()

    def again() -> None:
        os.tcsetpgrp(terminal, os.getpgrp())

    assert in_child(leading, [again]) == ["EPERM"]
    assert in_child(lambda: _take(terminal), [again]) == ["ok"]


def test_signals_go_to_itself_only() -> None:
    parent = os.getppid()
    signal.signal(signal.SIGURG, signal.SIG_IGN)
    number = signal.SIGURG
    tries: list[Callable[[], object]] = [
        lambda: os.kill(os.getpid(), number),
        lambda: os.killpg(os.getpgrp(), number),
        lambda: signal.raise_signal(number),
        lambda: os.kill(parent, 0),
        lambda: os.kill(-1, 0),
        lambda: os.kill(1, 0),
        call("tgkill", parent, parent, 0),
    ]
    assert in_child(_alone, tries) == ["ok"] * 3 + ["EPERM"] * 4


def _alone() -> None:
    os.setpgid(0, 0)
    confine()


def test_only_pairs_of_sockets_can_be_made_that_send_to_nobody_else() -> None:
    cloexec, nonblock = socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK
    types: list[int] = [
        socket.SOCK_STREAM,
        socket.SOCK_SEQPACKET,
        socket.SOCK_DGRAM,
        socket.SOCK_RAW,
    ]
    types += [types[0] | cloexec, types[1] | cloexec | nonblock, types[2] | cloexec]
    places = (ctypes.c_int * 2)()
    at = ctypes.addressof(places)
    tries = [call("socketpair", socket.AF_UNIX, kind, 0, at) for kind in types]
    tries += [call("socketpair", family, types[0], 0, at) for family in (socket.AF_INET, 30)]
    families = [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK]
    tries += [call("socket", family, socket.SOCK_DGRAM) for family in families]
    good, bad = ["ok"] * 2, ["EPERM"]
    assert in_child(confine, tries) == good + bad * 2 + good + bad * (3 + len(families))


def test_a_process_that_serves_accepts_and_does_not_connect(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)

    def served() -> None:
        async def work() -> None:
            async def answer(_: object, writer: asyncio.StreamWriter) -> None:
                writer.write(b"x")
                await writer.drain()
                done.set()

            done = asyncio.Event()
            async with await asyncio.start_unix_server(answer, sock=listening):
                await done.wait()

        asyncio.run(work())

    tries: list[Callable[[], object]] = [served, lambda: socket.socket(socket.AF_UNIX)]
    tries.append(call("bind", listening.fileno()))
    tries += [call("connect", sock.fileno(), b"\1\0/x", 4)]
    try:
        assert in_child(lambda: confine(serves=True), tries) == ["ok"] + ["EPERM"] * 3
        assert sock.recv(1) == b"x"
    finally:
        sock.close()
        listening.close()


def test_a_socket_that_listened_is_connected_to_nobody() -> None:
    """TCP Fast Open connects by sending, after a shutdown also with what was listening."""

    def listening() -> socket.socket:
        return socket.create_server(("127.0.0.1", 0))

    with listening() as theirs, listening() as ours, listening() as same:
        address, flag = theirs.getsockname(), socket.MSG_FASTOPEN
        for sock in (ours, same):
            sock.shutdown(socket.SHUT_RDWR)
        high = flag | 1 << 32
        tries: list[Callable[[], object]] = [
            lambda: ours.sendto(b"x", flag, address),
            lambda: same.sendmsg([b"x"], [], flag, address),
            lambda: ours.sendto(b"x", flag | socket.MSG_DONTWAIT, address),
            call("sendto", ours.fileno(), b"x", 1, high),
            call("sendmsg", ours.fileno(), 0, high),
        ]
        assert in_child(lambda: confine(serves=True), tries) == ["EPERM"] * 5
        # Nothing but the filter is in the way.
        assert in_child(lambda: None, tries[:2]) == ["ok", "ok"]


def test_no_file_has_others_signalled_or_held_up() -> None:
    ours, theirs = socket.socketpair()
    fd, parent = ours.fileno(), os.getpid()
    setfl = fcntl.F_SETFL
    good = [
        (fcntl.F_GETFL, 0),
        (setfl, os.O_NONBLOCK),
        (fcntl.F_DUPFD_CLOEXEC, 0),
        (fcntl.F_GETFD, 0),
    ]
    good += [(fcntl.F_SETFD, fcntl.FD_CLOEXEC), (setfl | 1 << 32, 0)]
    bad = [
        (fcntl.F_SETOWN, parent),
        (fcntl.F_SETOWN | 1 << 32, parent),
        (15, 0),
        (fcntl.F_SETSIG, 9),
    ]
    bad += [(fcntl.F_SETLEASE, fcntl.F_UNLCK), (fcntl.F_NOTIFY, 0), (setfl, 0o20000)]
    bad += [(setfl | 1 << 32, 0o20000), (setfl, os.O_NONBLOCK | 0o20000)]
    tries = [call("fcntl", fd, *words) for words in good + bad]
    assert in_child(confine, tries) == ["ok"] * len(good) + ["EPERM"] * len(bad)
    ioctls = [call("ioctl", fd, number, 0) for number in (0x8901, 0x8902, 0x5452)]
    assert in_child(confine, ioctls) == ["EPERM"] * 3
    theirs.close()


def test_what_a_dashboard_does_all_the_time_goes_on(tmp_path: Path) -> None:
    def files() -> None:
        path = tmp_path / "new"
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        os.write(fd, b"x")
        os.fsync(fd)
        os.ftruncate(fd, 0)
        os.replace(path, tmp_path / "newer")
        os.unlink(tmp_path / "newer")
        with tempfile.TemporaryFile(dir=tmp_path) as file:
            mmap.mmap(file.fileno(), file.truncate(4096)).close()

    def waits() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(ours, [b"x"], [1])
        for fd in socket.recv_fds(theirs, 1, 1)[1]:
            os.close(fd)
        select.select([], [ours], [], 1)
        os.eventfd_write(os.eventfd(0), 1)
        os.close(os.pidfd_open(os.getpid()))

    def loop() -> None:
        async def work() -> int:
            return await asyncio.to_thread(os.getpid)

        assert asyncio.run(work()) == os.getpid()

    assert in_child(confine, [files, waits, loop]) == ["ok"] * 3


def test_newer_calls_are_said_not_to_be_there() -> None:
    """A C library that knows more than this list takes its older way."""
    newest = max(table(ARCH))
    tries = [lambda: _number(newest + 1), lambda: _number(newest + 1000)]
    assert in_child(confine, tries) == ["ENOSYS", "ENOSYS"]


def _number(number: int) -> None:
    if LIBC.syscall(ctypes.c_long(number), 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "")


@pytest.mark.skipif(ARCH != "x86_64", reason="x32 is an x86 one")
def test_x32_calls_are_refused() -> None:
    getpid = nr_of("getpid", ARCH)
    assert getpid is not None
    assert in_child(confine, [lambda: _number(getpid | 0x40000000)]) == ["EPERM"]


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_every_name_is_one_and_programs_are_of_a_size_that_the_kernel_takes(arch: str) -> None:
    assert len(seccomp.program(arch, 1, 1, serves=True)) // 8 < 4096
    names = {name for known in ("x86_64", "arm64") for name in table(known).values()}
    assert set(seccomp.ALLOWED.split()) <= names
    assert not set(seccomp.ALLOWED.split()) & set(REFUSED)
    assert set(seccomp.MISSING.split() + seccomp.SERVING.split()) <= names
