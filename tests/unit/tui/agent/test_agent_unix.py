# SPDX-License-Identifier: Apache-2.0
"""A Unix socket that root binds and gives away, where others try to have something else given."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from probes.core.errors import ProbeError
from probes.host.privileges import NOBODY, User
from tests.unit.agent import Served
from tui.agent.http import unix_socket
from tui.agent.options import Listen
from tui.settings.validators import UsageError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="other users are made by root")
ALICE, MALLORY = 4711, 65534
USER = User(ALICE, ALICE, None)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory as /tmp is, where the socket of an agent would be, and another user's files."""
    with tempfile.TemporaryDirectory(prefix="probetop-test-") as name:
        path = Path(name)
        path.chmod(0o1777)
        yield path


def status_of(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def replaced_by(path: Path, what: Callable[[], object]) -> Callable[..., Any]:
    """`socket.bind` of an attacker: what was bound is replaced as soon as it is there."""
    real = socket.socket.bind

    def bind(self: socket.socket, address: Any) -> None:
        real(self, address)
        path.unlink(missing_ok=True)
        what()

    return bind


def test_a_file_that_a_link_leads_to_is_not_given_away(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is put there between bind and chown."""
    precious, path = shared / "precious", shared / "s"
    precious.write_text("data")
    before = status_of(precious)
    monkeypatch.setattr(
        socket.socket, "bind", replaced_by(path, lambda: path.symlink_to(precious)), raising=True
    )
    with pytest.raises(ProbeError, match="somebody does already"):
        unix_socket.open_unix(str(path), USER, (ALICE,))
    assert status_of(precious) == before
    assert path.is_symlink()
    assert sorted(one.name for one in shared.iterdir()) == ["precious", "s"]


def test_it_is_its_users_with_its_mode_from_the_first_moment(shared: Path) -> None:
    before = os.umask(0)
    try:
        sock = unix_socket.open_unix(str(shared / "s"), USER, (ALICE,))
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert status_of(shared / "s") == (ALICE, ALICE, 0o660)
    assert [one.name for one in shared.iterdir()] == ["s"]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(shared / "s"))
        sock.accept()[0].close()
    sock.close()
    # One that belongs to nobody would be that of whatever else runs as nobody.
    sock = unix_socket.open_unix(str(shared / "t"), User(NOBODY, NOBODY, None), ())
    assert status_of(shared / "t") == (0, 0, 0o660)
    sock.close()


@pytest.mark.parametrize("kind", ["file", "link", "directory", "fifo", "dangling"])
def test_what_is_there_is_neither_removed_nor_followed(shared: Path, kind: str) -> None:
    path, target = shared / "s", shared / "target"
    target.write_text("data")
    if kind == "file":
        path.write_text("data")
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(target if kind == "link" else shared / "none")
    before = path.lstat().st_ino
    with pytest.raises(UsageError, match="exists already"):
        unix_socket.open_unix(str(path), USER, (ALICE,))
    assert path.lstat().st_ino == before
    assert status_of(target)[0] == 0


@pytest.mark.parametrize(("uid", "mode"), [(MALLORY, 0o755), (0, 0o777), (0, 0o707), (0, 0o775)])
def test_a_directory_where_others_could_replace_it_is_refused(
    tmp_path: Path, uid: int, mode: int
) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    directory.chmod(mode)
    os.chown(directory, uid, uid)
    for user in (USER, User(NOBODY, NOBODY, None)):
        with pytest.raises(UsageError, match="others could put another socket"):
            unix_socket.open_unix(str(directory / "s"), user, (user.uid, ALICE))
    assert list(directory.iterdir()) == []
    os.chown(directory, ALICE, ALICE)
    directory.chmod(0o755)
    unix_socket.open_unix(str(directory / "s"), USER, (ALICE,)).close()


@pytest.mark.parametrize(
    ("uid", "mode", "name"),
    [
        (MALLORY, 0o755, "a/b/c"), (0, 0o777, "a/b/c"), (0, 0o775, "a/b/c"), (MALLORY, 0o755, "to"),
        (MALLORY, 0o755, "a/b/c/../../up"),
    ],
)  # fmt: skip
def test_a_way_that_others_could_change_is_refused(
    tmp_path: Path, uid: int, mode: int, name: str
) -> None:
    """Whoever may rename a directory on the way puts another one in its place."""
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    (tmp_path / "to").symlink_to("a/b/c")
    (tmp_path / "a" / "up").symlink_to(inner)
    path = tmp_path / name / "s"
    unix_socket.open_unix(str(path), USER, (ALICE,)).close()
    (inner / "s").unlink()
    (tmp_path / "a").chmod(mode)
    os.chown(tmp_path / "a", uid, uid)
    with pytest.raises(UsageError, match="others could put another socket"):
        unix_socket.open_unix(str(path), USER, (ALICE,))
    assert list(inner.iterdir()) == []
    (tmp_path / "a").chmod(0o1777)
    os.chown(tmp_path / "a", 0, 0)
    unix_socket.open_unix(str(path), USER, (ALICE,)).close()


def test_a_link_of_somebody_else_is_not_followed(shared: Path) -> None:
    """Anybody may make one in a directory such as /tmp."""
    (shared / "d").mkdir()
    link = shared / "link"
    link.symlink_to("d")
    for uid, loop in ((0, False), (ALICE, False), (MALLORY, False), (0, True)):
        if loop:
            link.unlink()
            link.symlink_to("link")
        os.chown(link, uid, uid, follow_symlinks=False)
        if uid != MALLORY and not loop:
            unix_socket.open_unix(str(link / "s"), USER, (ALICE,)).close()
            continue
        with pytest.raises(ProbeError, match="symbolic links" if loop else "others could put"):
            unix_socket.open_unix(str(link / "t"), USER, (ALICE,))


def test_a_socket_of_somebody_else_is_none_that_an_agent_left(shared: Path) -> None:
    path = shared / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    for uid in (ALICE, 0):
        os.chown(path, MALLORY, MALLORY)
        with pytest.raises(UsageError, match="a socket of somebody else"):
            unix_socket.open_unix(str(path), USER, (ALICE,))
        assert path.exists()
        os.chown(path, uid, uid)
        unix_socket.open_unix(str(path), USER, (ALICE,)).close()


# Who is at the other end.

ASK = """
import http.client, json, socket, sys
for method, path, body in json.loads(sys.argv[2]):
    client = http.client.HTTPConnection("localhost")
    client.sock = socket.socket(socket.AF_UNIX)
    client.sock.connect(sys.argv[1])
    client.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    print(client.getresponse().status)
"""
WISHES = """[
    ["PUT", "/v1/probes/execs", "{\\"on\\": false}"],
    ["POST", "/v1/runs", "{\\"seconds\\": 1}"],
    ["DELETE", "/v1/latency/targets?spec=runq", null],
    ["GET", "/v1/filters", null],
    ["GET", "/v1/snapshot.json", null],
    ["GET", "/v1/search?q=malloc", null]
]"""


def asked_by(uid: int, path: Path) -> list[int]:
    """What an agent answers this user."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(path), WISHES],
        user=uid, group=uid, extra_groups=[], cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [int(word) for word in done.stdout.split()]


def test_nobody_is_not_who_started_it(shared: Path) -> None:
    """A service that runs as nobody: others may, too, and user namespaces show as it."""
    path = shared / "s"
    with Served(listen=Listen(path=str(path)), owner=NOBODY):
        path.chmod(0o666)
        assert asked_by(NOBODY, path) == [403, 403, 403, 200, 200, 403]
        assert asked_by(0, path)[:2] == [200, 201]


def test_only_its_user_and_root_control_it_by_a_socket(shared: Path) -> None:
    path = shared / "s"
    with Served(listen=Listen(path=str(path)), owner=ALICE) as served:
        path.chmod(0o666)
        before = list(served.source.commands)
        assert asked_by(MALLORY, path) == [403, 403, 403, 200, 200, 403]
        # The agent's own user is not who started it.
        assert asked_by(NOBODY, path)[0] == 403
        assert served.source.commands == before
        assert asked_by(ALICE, path) == [200, 201, 204, 200, 200, 200]
        assert asked_by(0, path)[:2] == [200, 201]
