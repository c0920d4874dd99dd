# SPDX-License-Identifier: Apache-2.0
"""The process that makes files of root's: what it makes, and what it refuses whoever asks."""

from __future__ import annotations

import os
import random
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes import file_maker
from probes.base import ProbeError
from probes.file_maker import Maker, Place, Rule


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


def maker_of(rule: Rule, asked: dict[Rule, Maker]) -> Maker:
    """The side without privileges of a maker with this rule."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    place = Place(rule)

    def serve() -> None:
        while True:
            data, fds, _, _ = socket.recv_fds(theirs, file_maker.LONGEST_REQUEST + 1, 1)
            if not data:
                theirs.close()
                return
            answer, found = file_maker._answer(place, data, fds)
            socket.send_fds(theirs, [answer], found)
            for fd in (*fds, *found):
                os.close(fd)

    threading.Thread(target=serve, daemon=True).start()
    asked[rule] = Maker(ours)
    return asked[rule]


def test_new_files_where_it_was_started(tmp_path: Path, asked: dict[Rule, Maker]) -> None:
    maker = maker_of(Rule(), asked)
    fd = maker.create("a.ptrec", False)
    os.write(fd, b"x")
    os.close(fd)
    maker.check("b.html")
    maker.write(str(tmp_path / "start" / "b.html"), b"y" * 100_000, False)
    maker.write(str(tmp_path / "scratch" / "c.JSON"), b"z", False)
    start = tmp_path / "start"
    assert (start / "a.ptrec").read_bytes() == b"x"
    assert (start / "b.html").read_bytes() == b"y" * 100_000
    assert stat.S_IMODE((start / "b.html").stat().st_mode) == 0o600
    assert (tmp_path / "scratch" / "c.JSON").read_bytes() == b"z"


@pytest.mark.parametrize(
    "path",
    [
        "../other/a.html",
        "below/a.html",
        "/etc/cron.d/a.html",
        "/etc/a.json",
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
    resolve = os.path.realpath

    def then_exchange(path: str) -> str:
        found = resolve(path)
        if found == str(folder):
            folder.rmdir()
            folder.symlink_to(other)
        return found

    maker = maker_of(Rule(), asked)
    monkeypatch.setattr(os.path, "realpath", then_exchange)
    with pytest.raises(ProbeError):
        maker.write(str(folder / "a.html"), b"x", False)
    assert os.listdir(other) == []


def test_any_bytes_are_answered(tmp_path: Path) -> None:
    rng = random.Random(5)
    place = Place(Rule())
    starts = [b"", b"c", b"w ", b"k!", b"c /", b"c .html", b"k ../"]
    reading, writing = os.pipe()
    for _ in range(2000):
        request = rng.choice(starts) + rng.randbytes(rng.randrange(40))
        for fds in ([], [reading]):
            answer, found = file_maker._answer(place, request, fds)
            for fd in found:
                os.close(fd)
            assert answer == b"ok" or b"\0" in answer
    os.close(reading)
    os.close(writing)
    assert sorted(os.listdir(tmp_path)) == ["other", "scratch", "start"]


def test_contents_of_another_kind_are_refused(tmp_path: Path) -> None:
    """A pipe would make it wait; a device would never end."""
    reading, writing = os.pipe()
    zero = os.open("/dev/zero", os.O_RDONLY)
    huge = os.memfd_create("huge")
    os.truncate(huge, file_maker.LARGEST_FILE + 1)
    for fd in (reading, zero, huge):
        answer, _ = file_maker._answer(Place(Rule()), b"w a.html", [fd])
        assert answer != b"ok"
        os.close(fd)
    os.close(writing)
    assert not (tmp_path / "start" / "a.html").exists()
