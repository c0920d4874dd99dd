# SPDX-License-Identifier: Apache-2.0
"""How a live command begins: descriptors, environment and limits of its caller."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.core.errors import ProbeError
from probes.host import privileges, process_start
from probes.host.privileges import NOBODY, User, service_user
from tests.unit.confined import in_child


def test_only_the_standard_descriptors_and_named_ones_stay_open(tmp_path: Path) -> None:
    file = os.open(tmp_path, os.O_RDONLY)

    def begin() -> None:
        for number in (40, 41, 42, 1000):
            os.dup2(file, number)
        # Descriptor 42 is that of a file that a shell has opened for an argument.
        process_start.begin(["stream", "--config=/dev/fd/42", "/proc/self/fd/99999999999"])

    def open_now(*numbers: int) -> None:
        for number in numbers:
            os.fstat(number)

    def closed() -> None:
        process_start.close_named()
        os.fstat(42)

    try:
        tries = [lambda: open_now(0, 1, 2, 42), lambda: open_now(40), lambda: open_now(1000)]
        # The pipe that the child answers by is one of the caller's too, so it is kept by a name.
        outcomes = _in_child_with_pipe(begin, [*tries, closed])
    finally:
        os.close(file)
    assert outcomes == ["ok", "EBADF", "EBADF", "EBADF"]


def _in_child_with_pipe(begin: object, tries: list[object]) -> list[str]:
    assert callable(begin)

    def keep_pipe_and_begin() -> None:
        pipes = [
            int(name)
            for name in os.listdir("/proc/self/fd")
            if int(name) > 2 and _is_pipe(int(name))
        ]
        process_start._named.update(pipes)
        begin()
        process_start._named.difference_update(pipes)

    return in_child(keep_pipe_and_begin, tries)  # type: ignore[arg-type]


def _is_pipe(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
    except OSError:
        return False


def test_what_makes_libraries_load_files_is_removed() -> None:
    bad = {
        "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONSTARTUP", "OPENSSL_CONF",
        "SSLKEYLOGFILE", "GCONV_PATH", "GLIBC_TUNABLES", "TMPDIR",
    }  # fmt: skip
    good = {"TERM", "LANG", "PATH", "HOME", "SUDO_UID", "NOTIFY_SOCKET", "PYTHONUNBUFFERED"}
    environment = dict.fromkeys(bad | good, "x")
    process_start.scrub(environment)
    assert environment.keys() == good


def test_what_keeps_privileges_has_an_environment_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CPATH", "DEBUGINFOD_URLS", "BCC_PROBE_READ", "CCC_OVERRIDE_OPTIONS"):
        monkeypatch.setenv(name, "/evil")
    monkeypatch.setenv("SUDO_UID", "1000")

    def judge() -> None:
        assert "/evil" not in os.environ.values()
        assert os.environ["SUDO_UID"] == "1000"
        assert os.environ["PATH"] == process_start.SAFE_PATH

    assert in_child(process_start.keep_privileges, [judge]) == ["ok"]


def test_too_few_open_files_are_told_with_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = process_start.files_needed()
    monkeypatch.setattr(resource, "getrlimit", lambda which: (64, 64))
    with pytest.raises(ProbeError, match=f"open files: 64 are allowed, and {needed} are needed"):
        process_start.check_files()
    monkeypatch.setattr(resource, "getrlimit", lambda which: (needed, needed))
    process_start.check_files()
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    process_start.check_files()


def test_root_becomes_nobody_unless_it_names_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "getegid", lambda: 0)
    monkeypatch.delenv("SUDO_UID", raising=False)
    assert service_user(None) == User(NOBODY, NOBODY, None)
    assert service_user("0").uid == 0
    monkeypatch.setenv("SUDO_UID", "54321")
    monkeypatch.setenv("SUDO_GID", "54321")
    assert service_user(None).uid == 54321


def test_whether_a_user_can_reach_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    os.chmod(tmp_path / "a", 0o700)
    stranger, owner = User(54321, 54321, None), User(os.getuid(), os.getgid(), None)
    assert not privileges.may_read(stranger, str(folder / "file"))
    assert privileges.may_read(owner, str(folder / "file"))
    assert privileges.may_read(stranger, "/usr/file")


def test_a_terminal_is_for_messages_only_and_no_way_leads_to_its_keys() -> None:
    controller, terminal = os.openpty()
    fd = os.open(os.ttyname(terminal), os.O_RDONLY | os.O_NOCTTY)

    def job() -> None:
        """A job of a session that has this terminal, with all three descriptors on it."""
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        for standard in range(3):
            os.dup2(terminal, standard)
        if os.fork():
            os.wait()
            os._exit(0)
        process_start.release_terminal()

    def no_keys() -> None:
        assert not os.isatty(0)

    def keys(number: int) -> None:
        if os.isatty(number):
            os.read(number, 1)

    tries: list[Callable[[], object]] = [lambda: os.write(1, b"out"), no_keys]
    tries.insert(1, lambda: os.write(2, b"err"))
    tries += [lambda: keys(1), lambda: keys(2), lambda: os.open("/dev/tty", os.O_RDONLY)]
    assert in_child(job, tries) == ["ok"] * 3 + ["EBADF"] * 2 + ["ENXIO"]
    assert os.read(controller, 100) == b"outerr"
    for number in (controller, terminal, fd):
        os.close(number)


def test_what_is_no_terminal_is_left_alone() -> None:
    reading, writing = os.pipe()

    def piped() -> None:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        process_start.release_terminal()

    tries = [lambda: os.write(1, b"out"), lambda: os.write(2, b"err")]
    assert in_child(piped, tries) == ["ok"] * 2
    assert os.read(reading, 100) == b"outerr"
    os.close(reading)
    os.close(writing)


def test_open_files_are_limited_for_good() -> None:
    most = process_start.MOST_FILES + process_start.files_needed()

    def limits() -> None:
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] <= most

    def more() -> None:
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
        with pytest.raises(ValueError, match="maximum limit"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most + 1, most + 1))

    def drop() -> None:
        privileges.drop(User(NOBODY, NOBODY, None) if os.geteuid() == 0 else _ourselves())

    assert in_child(drop, [limits, more, _undumpable]) == ["ok"] * 3


def _ourselves() -> User:
    return User(os.geteuid(), os.getegid(), None)


def _undumpable() -> None:
    """Where no user was changed, the kernel would leave this as it was."""
    assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_that_stays_root_is_undumpable_too() -> None:
    assert in_child(lambda: privileges.drop(User(0, 0, "root")), [_undumpable]) == ["ok"]


def test_nothing_can_be_read_even_without_a_null_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "devnull", "/nowhere/null")
    fd = process_start._nothing()
    assert os.read(fd, 1) == b""
    os.close(fd)
