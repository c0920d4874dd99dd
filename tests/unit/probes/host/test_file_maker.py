# SPDX-License-Identifier: Apache-2.0
"""The process that makes files of root's: what it makes, and what it refuses whoever asks."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from probes.core.errors import ProbeError
from probes.host import file_maker, privileges
from probes.host.file_maker import Maker, RootsPlace, Rule, UsersPlace
from probes.host.privileges import User
from tests.folders import tmp_path as tmp_path
from tests.unit.confined import in_child
from tests.unit.probes.host.test_landlock import VERSION


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to start in; what lies outside of it is not below a scratch folder."""
    (tmp_path / "start" / "below").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(file_maker, "SCRATCH", (str(tmp_path / "scratch"),))
    monkeypatch.chdir(tmp_path / "start")


@pytest.fixture
def asked() -> Iterator[dict[Rule, Maker]]:
    """Makers by their rule, each with the real loop in a thread of this process."""
    makers: dict[Rule, Maker] = {}
    yield makers
    for maker in makers.values():
        maker._sock.close()


def maker_of(rule: Rule, asked: dict[Rule, Maker], kind: type[UsersPlace] = RootsPlace) -> Maker:
    """The side without privileges of a maker with this rule."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    place, content = kind(rule), file_maker.new_content()

    def serve() -> None:
        while True:
            data = theirs.recv(file_maker.LONGEST_REQUEST + 1)
            if not data:
                theirs.close()
                os.close(content)
                return
            answer, found = file_maker._answer(place, content, data)
            socket.send_fds(theirs, [answer], found)
            for fd in found:
                os.close(fd)

    threading.Thread(target=serve, daemon=True).start()
    asked[rule] = Maker(ours, content)
    return asked[rule]


def test_new_files_where_it_was_started(tmp_path: Path, asked: dict[Rule, Maker]) -> None:
    maker = maker_of(Rule(), asked)
    fd = maker.create("a.ptrec", False)
    os.write(fd, b"x")
    os.close(fd)
    maker.check("b.html")
    maker.write(str(tmp_path / "start" / "b.html"), b"y" * 100_000, False)
    maker.write(str(tmp_path / "scratch" / "probetop-c.JSON"), b"z", False)
    start = tmp_path / "start"
    assert (start / "a.ptrec").read_bytes() == b"x"
    assert (start / "b.html").read_bytes() == b"y" * 100_000
    assert stat.S_IMODE((start / "b.html").stat().st_mode) == 0o600
    assert (tmp_path / "scratch" / "probetop-c.JSON").read_bytes() == b"z"


@pytest.mark.parametrize(
    "path",
    [
        "../other/a.html",
        "below/a.html",
        "/etc/cron.d/a.html",
        "/etc/probetop-a.json",
        "package.json",
        "Probetop.json",
        "daemon.JSON",
        "probetop\n.html",
        "a.html\n",
        "*.html",
        "-rf.html",
        "private/a.html",
        "../scratch/private/a.html",
        "../scratch/private/open/a.html",
        "../scratch/fifo.html",
        "../scratch/hard.html",
        f"{'x' * 300}.html",
        f"{'x/' * 3000}a.html",
        "a.conf",
        "a",
        ".a.html",
        "",
        ".html",
        "..",
        "link/a.html",
        "dangling.html",
        "there.html",
        "\0.html",
        "../scratch-not/a.html",
        "../start/../other/a.svg",
    ],
)
def test_all_else_is_refused(path: str, tmp_path: Path, asked: dict[Rule, Maker]) -> None:
    (tmp_path / "start" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "start" / "dangling.html").symlink_to(tmp_path / "other" / "made.html")
    (tmp_path / "start" / "there.html").write_text("mine")
    (tmp_path / "scratch-not").mkdir()
    (tmp_path / "scratch" / "private" / "open").mkdir(parents=True)
    (tmp_path / "scratch" / "private").chmod(0o700)
    os.mkfifo(tmp_path / "scratch" / "fifo.html")
    (tmp_path / "scratch" / "hard.html").hardlink_to(tmp_path / "start" / "there.html")
    maker = maker_of(Rule(), asked)
    before = sorted(tmp_path.rglob("*"))
    for force in (False, True):
        with pytest.raises(ProbeError):
            maker.create(path, force)
        with pytest.raises(ProbeError):
            maker.write(path, b"x", force)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "start" / "there.html").read_text() == "mine"


def test_the_file_of_the_command_line_and_no_other(
    tmp_path: Path, asked: dict[Rule, Maker]
) -> None:
    path = str(tmp_path / "other" / "any.name")
    maker = maker_of(Rule(path), asked)
    with pytest.raises(ProbeError):
        maker.create("a.html", False)
    os.close(maker.create(path, False))
    with pytest.raises(ProbeError, match="exists"):
        maker.write(path, b"x", False)
    with pytest.raises(ProbeError):
        maker.write(path, b"x", True)
    forced = maker_of(Rule(path, force=True), asked)
    forced.write(path, b"new", True)
    assert Path(path).read_bytes() == b"new"
    assert os.listdir(tmp_path / "other") == ["any.name"]


def test_a_folder_that_is_exchanged_for_a_link_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[Rule, Maker]
) -> None:
    """Between the look at a path and the making of the file, who owns a folder may change it."""
    folder, other = tmp_path / "scratch" / "theirs", tmp_path / "other"
    folder.mkdir()
    step = file_maker._step

    def exchanged(part: str) -> int:
        if part == folder.name:
            folder.rmdir()
            folder.symlink_to(other)
        return step(part)

    maker = maker_of(Rule(), asked)
    monkeypatch.setattr(file_maker, "_step", exchanged)
    with pytest.raises(ProbeError):
        maker.write(str(folder / "a.html"), b"x", False)
    assert os.listdir(other) == []


def test_any_bytes_are_answered(tmp_path: Path) -> None:
    rng = random.Random(5)
    place, content = RootsPlace(Rule()), file_maker.new_content()
    starts = [b"", b"c", b"w ", b"k!", b"c /", b"c .html", b"k ../"]
    for _ in range(4000):
        request = rng.choice(starts) + rng.randbytes(rng.randrange(40))
        answer, found = file_maker._answer(place, content, request)
        for fd in found:
            os.close(fd)
        assert answer == b"ok" or b"\0" in answer
    os.close(content)
    assert sorted(os.listdir(tmp_path)) == ["other", "scratch", "start"]


def test_a_content_is_as_long_as_it_says_and_never_larger(tmp_path: Path) -> None:
    place, content = RootsPlace(Rule()), file_maker.new_content()
    for length, name in {0: b"a", file_maker.LARGEST_FILE: b"b"}.items():
        os.pwrite(content, length.to_bytes(8, "little"), 0)
        assert file_maker._answer(place, content, b"w %s.html" % name)[0] == b"ok"
        assert (tmp_path / "start" / f"{name.decode()}.html").stat().st_size == length
    for length in (file_maker.LARGEST_FILE + 1, (1 << 64) - 1):
        os.pwrite(content, length.to_bytes(8, "little"), 0)
        assert file_maker._answer(place, content, b"w c.html")[0] != b"ok"
    os.close(content)
    assert not (tmp_path / "start" / "c.html").exists()


def test_the_memory_of_a_content_is_bounded_and_given_back(asked: dict[Rule, Maker]) -> None:
    """What is in it belongs to no process that the kernel could end."""
    maker = maker_of(Rule(), asked)
    size = os.fstat(maker._content).st_size
    for change in (
        lambda: os.truncate(maker._content, size + 1),
        lambda: os.truncate(maker._content, 1),
        lambda: os.pwrite(maker._content, b"x", size),
    ):
        with pytest.raises(PermissionError):
            change()
    for name in ("a.html", "b.html"):
        maker.write(name, b"x" * 1_000_000, False)
        assert os.fstat(maker._content).st_blocks == 0
        assert Path(name).read_bytes() == b"x" * 1_000_000
    with pytest.raises(ProbeError, match="more than 64 MiB"):
        maker.write("c.html", bytes(file_maker.LARGEST_FILE + 1), False)


def test_only_so_many_files_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[Rule, Maker]
) -> None:
    monkeypatch.setattr(file_maker, "MOST_FILES", 3)
    maker = maker_of(Rule(), asked)
    with pytest.raises(ProbeError):
        maker.create("a.conf", False)
    for name in ("a.html", "b.html"):
        maker.write(name, b"x", False)
    os.close(maker.create("c.ptrec", False))
    for make in (lambda: maker.write("d.html", b"x", False), lambda: maker.create("e.svg", False)):
        with pytest.raises(ProbeError, match="3 files were made, the most"):
            make()
    assert len(os.listdir(tmp_path / "start")) == 4


def test_a_start_folder_that_is_renamed_is_still_the_one(
    tmp_path: Path, asked: dict[Rule, Maker]
) -> None:
    maker = maker_of(Rule(), asked)
    (tmp_path / "start").rename(tmp_path / "moved")
    (tmp_path / "start").symlink_to(tmp_path / "other")
    maker.write("a.html", b"x", False)
    assert "a.html" in os.listdir(tmp_path / "moved")
    assert os.listdir(tmp_path / "other") == []


def test_what_to_type_instead_is_one_line(tmp_path: Path, asked: dict[Rule, Maker]) -> None:
    maker = maker_of(Rule(), asked)
    for path, words in {
        "/srv/data/a.html": "/srv/data: as root, no file is made there",
        "/etc/a.ptrec": "/etc: as root, no file is made there",
        "package.json": "cannot create package.json",
    }.items():
        with pytest.raises(ProbeError) as caught:
            maker.check(path)
        assert caught.value.why == words
        assert len(f"{caught.value.why}; {caught.value.fix}") <= 80
    maker.check("probetop-package.json")


def test_a_late_answer_is_not_taken_for_another_one() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0.01)
    maker = Maker(ours, -1)
    with pytest.raises(ProbeError):
        maker.check("a.html")
    with suppress(OSError):
        theirs.send(b"ok")
    with pytest.raises(ProbeError, match="cannot create files"):
        maker.check("b.html")
    ours.close()
    theirs.close()


def test_recordings_end_at_a_size() -> None:
    def grow(size: int) -> None:
        os.truncate(os.memfd_create("recording"), size)

    most = file_maker.LARGEST_RECORDING
    tries = [lambda: grow(most), lambda: grow(most + 1)]
    assert in_child(lambda: file_maker.start(Rule()), tries) == ["ok", "EFBIG"]


def test_only_a_dashboard_has_its_job_stopped() -> None:
    seen = list[int]()

    def alone() -> None:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTSTP, lambda number, _: seen.append(number))

    def stop(rule: Rule, signals: int) -> None:
        answer, _ = file_maker._answer(RootsPlace(rule), -1, file_maker.STOP)
        assert (answer == b"ok", len(seen)) == (signals > 0, signals)

    tries = [lambda: stop(Rule("a.html"), 0), lambda: stop(Rule(), 1)]
    assert in_child(alone, tries) == ["ok", "ok"]


def test_what_is_there_is_not_told(tmp_path: Path, asked: dict[Rule, Maker]) -> None:
    """Neither whether a folder exists nor where a link leads: it would be looked at as root."""
    hidden = tmp_path / "other" / "hidden"
    hidden.mkdir()
    (hidden / "folder").mkdir()
    (hidden / "link").symlink_to("/srv/the-name-of-a-customer")
    (hidden / "loop").symlink_to("loop")
    (tmp_path / "scratch" / "away").symlink_to(hidden)
    maker = maker_of(Rule(), asked)
    for folder in ("other/hidden", "start/../other/hidden", "scratch/../other/hidden"):
        said = set()
        for name in ("folder", "link", "loop", "missing"):
            with pytest.raises(ProbeError) as caught:
                maker.check(f"{tmp_path}/{folder}/{name}/a.html")
            said.add(str(caught.value).replace(name, "NAME"))
        assert len(said) == 1, said
    with pytest.raises(ProbeError, match="/proc/self/cwd: as root, no file is made there"):
        maker.check("/proc/self/cwd/a.html")
    with pytest.raises(ProbeError) as caught:
        maker.check(f"{tmp_path}/scratch/away/a.html")
    assert "hidden" not in str(caught.value)
    # The same folder by another text is the same.
    maker.check(f"/{tmp_path}//start/./a.html")


ALICE = 4711


def _as_alice(rule: Rule, folder: Path) -> None:
    """Be a dashboard of Alice's, who may write to the folder, as `start.open_live` makes it."""
    os.chown(folder, ALICE, ALICE)
    alice = User(ALICE, ALICE, None)
    file_maker.start(rule, alice)
    privileges.drop(alice, writes=False)


def _maker() -> Maker:
    maker = file_maker.current()
    assert maker is not None
    return maker


def _made(path: Path, force: bool = False) -> None:
    """Have a file made; raises OSError where it is refused."""
    try:
        os.close(_maker().create(str(path), force))
    except ProbeError as error:
        raise OSError(errno.EPERM, str(error)) from error


@pytest.mark.skipif(os.geteuid() != 0, reason="other users are made by root")
@pytest.mark.skipif(VERSION == 0, reason="this kernel has no Landlock")
def test_a_users_dashboard_has_new_files_made_and_changes_none(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").write_text("# mine\n")
    (home / "old.html").write_text("mine")
    for path in home.iterdir():
        os.chown(path, ALICE, ALICE)
    tries = {
        "make": (lambda: _made(home / "a.ptrec"), "ok"),
        "write": (lambda: _maker().write(str(home / "b.html"), b"x", False), "ok"),
        "check": (lambda: _maker().check(str(home / "c.svg")), "ok"),
        # By Landlock, where the kernel has it.
        "append": (lambda: os.open(home / ".bashrc", os.O_APPEND | os.O_WRONLY), "EACCES"),
        "truncate": (lambda: os.truncate(home / ".bashrc", 0), "EPERM"),
        "change the mode": (lambda: os.chmod(home / ".bashrc", 0o4755), "EPERM"),
        "and of an open file": (lambda: os.fchmod(os.open(home / ".bashrc", 0), 0o4755), "EPERM"),
        "directly": (lambda: os.open(home / "d.html", os.O_CREAT | os.O_WRONLY), "EACCES"),
        "replace": (lambda: _made(home / "old.html", True), "EPERM"),
        "what is there": (lambda: _made(home / "old.html"), "EPERM"),
        "of another kind": (lambda: _made(home / ".ssh" / "authorized_keys"), "EPERM"),
        "a name": (lambda: _made(home / ".bash_aliases"), "EPERM"),
        "of a known name": (lambda: _made(home / "package.json"), "EPERM"),
        "of root's": (lambda: _made(tmp_path / "a.html"), "EPERM"),
        "the job": (lambda: os.abort() if _maker().stop() else None, "ok"),
    }
    done = in_child(lambda: _as_alice(Rule(), home), [work for work, _ in tries.values()])
    assert dict(zip(tries, done, strict=True)) == {name: word for name, (_, word) in tries.items()}
    assert sorted(os.listdir(home)) == [".bashrc", "a.ptrec", "b.html", "old.html"]
    assert (home / ".bashrc").read_text() == "# mine\n"
    for name in ("a.ptrec", "b.html"):
        status = (home / name).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (ALICE, ALICE, 0o600)
    assert sorted(os.listdir(tmp_path)) == ["home", "other", "scratch", "start"]


@pytest.mark.skipif(os.geteuid() != 0, reason="other users are made by root")
def test_a_user_replaces_the_file_of_the_command_line_and_no_other(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("any.name", "other.html"):
        (home / name).write_text("old")
        os.chown(home / name, ALICE, ALICE)
    path = home / "any.name"
    tries = [
        lambda: _made(home / "other.html", True),
        lambda: _made(home / "new.html"),
        lambda: _maker().write(str(path), b"new", True),
    ]
    rule = Rule(str(path), force=True)
    assert in_child(lambda: _as_alice(rule, home), tries) == ["EPERM", "EPERM", "ok"]
    assert (path.read_text(), path.stat().st_uid) == ("new", ALICE)
    assert (home / "other.html").read_text() == "old"


@pytest.mark.skipif(os.geteuid() != 0, reason="other users are made by root")
def test_a_folder_that_the_user_may_not_write_to_is_said_as_usual(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()

    def refused() -> None:
        with pytest.raises(ProbeError) as caught:
            _maker().check(str(tmp_path / "a.html"))
        words = "Permission denied; choose a folder that you may write to"
        assert words in f"{caught.value.why}; {caught.value.fix}"

    assert in_child(lambda: _as_alice(Rule(), home), [refused]) == ["ok"]
