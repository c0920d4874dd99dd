# SPDX-License-Identifier: Apache-2.0
"""How a live command begins: descriptors, environment and limits of its caller."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from probes import privileges, process_start
from probes.base import ProbeError
from probes.privileges import NOBODY, User, service_user
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
