# SPDX-License-Identifier: Apache-2.0
"""The Landlock domain, entered in a child: what lies outside of it cannot be reached."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from probes.host import landlock
from tests.unit.confined import in_child

PR_SET_NO_NEW_PRIVS = 38


def _version() -> int:
    try:
        return landlock.version()
    except OSError:
        return 0


VERSION = _version()
pytestmark = pytest.mark.skipif(VERSION == 0, reason="this kernel has no Landlock")


def restrict(writes: bool) -> None:
    """Enter the domain."""
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    assert landlock.restrict(writes=writes) is None


@pytest.fixture
def outside() -> Iterator[int]:
    """A process of the same user that is no part of the domain."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _tries(path: Path, outside: int) -> dict[str, Callable[[], object]]:
    """Everything that a user may do, by name."""
    link = path / "link"
    return {
        "read": (path / "file").read_bytes,
        "list": partial(os.listdir, path),
        "null": partial(Path(os.devnull).write_bytes, b"x"),
        "append": partial(os.open, path / "file", os.O_WRONLY | os.O_APPEND),
        "truncate": partial(os.truncate, path / "file", 0),
        "make": partial(os.open, path / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
        "make a directory": partial(os.mkdir, path / "folder"),
        "link": partial(os.symlink, "/etc", link),
        "rename": partial(os.rename, path / "file", path / "other"),
        "remove": partial(os.unlink, path / "file"),
        "memory": partial(os.open, f"/proc/{outside}/mem", os.O_RDONLY),
        "start": partial(os.execv, shutil.which("true") or "/bin/true", ["true"]),
    }


REFUSED_WRITES = ("append", "make", "make a directory", "link", "rename", "remove")


def test_without_leave_to_write_nothing_can_be_written(tmp_path: Path, outside: int) -> None:
    (tmp_path / "file").write_text("x")
    tries = _tries(tmp_path, outside)
    outcomes = dict(zip(tries, in_child(partial(restrict, False), [*tries.values()]), strict=True))
    if VERSION < 3:
        del outcomes["truncate"]
    fine = {"read": "ok", "list": "ok", "null": "ok"}
    assert outcomes == {name: fine.get(name, "EACCES") for name in outcomes}
    assert (tmp_path / "file").read_text() == "x"
    assert os.listdir(tmp_path) == ["file"]


def test_with_leave_the_users_files_are_theirs(tmp_path: Path, outside: int) -> None:
    (tmp_path / "file").write_text("x")
    tries = _tries(tmp_path, outside)
    outcomes = dict(zip(tries, in_child(partial(restrict, True), [*tries.values()]), strict=True))
    assert outcomes.pop("remove") in ("ok", "ENOENT")  # it has another name by then
    refused = {"memory": "EACCES", "start": "EACCES"}
    assert outcomes == {name: refused.get(name, "ok") for name in outcomes}


@pytest.mark.skipif(VERSION < 6, reason="signals are scoped since Linux 6.12")
def test_signals_and_abstract_sockets_stay_inside(outside: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs:
        theirs.bind(f"\0probetop-{os.getpid()}")
        name = theirs.getsockname()

        def connect() -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
                ours.connect(name)

        tries: list[Callable[[], object]] = [
            partial(os.kill, outside, 0),
            connect,
            lambda: os.kill(os.getpid(), 0),
        ]
        assert in_child(partial(restrict, True), tries) == ["EPERM", "EPERM", "ok"]
        assert in_child(lambda: None, tries) == ["ok"] * 3


@pytest.mark.skipif(VERSION < 4, reason="TCP is scoped since Linux 6.7")
def test_nobody_is_called_by_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        tries: list[Callable[[], object]] = [
            lambda: socket.create_connection(server.getsockname()),
            lambda: socket.create_server(("127.0.0.1", 0)),
        ]
        assert in_child(partial(restrict, True), tries) == ["EACCES", "EACCES"]
        assert in_child(lambda: None, tries) == ["ok", "ok"]


def test_a_kernel_without_it_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "nr_of", lambda name, arch: 9999)
    told = landlock.restrict(writes=True)
    assert told is not None
    assert "CONFIG_SECURITY_LANDLOCK" in told
