# SPDX-License-Identifier: Apache-2.0
"""The process that makes files of root's: what it makes, and what it refuses whoever asks."""

from __future__ import annotations

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

from probes import file_maker
from probes.base import ProbeError
from probes.file_maker import Maker, Place, Rule
from tests.unit.confined import in_child


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
    elsewhere = os.open(__file__, os.O_RDONLY)  # as a file would be that some program provides
    for fd in (reading, zero, huge, elsewhere):
        answer, _ = file_maker._answer(Place(Rule()), b"w a.html", [fd])
        assert answer != b"ok"
        os.close(fd)
    os.close(writing)
    assert not (tmp_path / "start" / "a.html").exists()


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
        "package.json": "cannot create package.json as root",
    }.items():
        with pytest.raises(ProbeError) as caught:
            maker.check(path)
        assert caught.value.why == words
        assert len(f"{caught.value.why}; {caught.value.fix}") <= 80
    maker.check("probetop-package.json")


def test_a_late_answer_is_not_taken_for_another_one() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0.01)
    maker = Maker(ours)
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
        answer, _ = file_maker._answer(Place(rule), file_maker.STOP, [])
        assert (answer == b"ok", len(seen)) == (signals > 0, signals)

    tries = [lambda: stop(Rule("a.html"), 0), lambda: stop(Rule(), 1)]
    assert in_child(alone, tries) == ["ok", "ok"]
