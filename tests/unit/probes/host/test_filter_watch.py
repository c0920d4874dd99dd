# SPDX-License-Identifier: Apache-2.0
"""What is watched of filters, by /proc files and directories that are made up."""

from __future__ import annotations

import gc
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.frame import Filters
from probes.host import filter_watch
from probes.host.filter_watch import ENDED, FilterWatch, check_started

TICK = 10_000_000
STAT = "811 (a) S 1 ((x) R 1 811 811 0 -1 4194304 99 0 0 0 1 2 0 0 20 0 1 0 123456 1 2 3"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for the end of its input."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        yield process


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that looks like a cgroup2 mount with one cgroup."""
    make(tmp_path)
    make(tmp_path / "a")
    monkeypatch.setattr(kernel, "cgroup2", lambda: tmp_path)
    return tmp_path


def make(path: Path) -> None:
    path.mkdir(exist_ok=True)
    (path / "cgroup.procs").touch()


def end(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    child.wait()


def test_a_process_is_held_from_its_start_to_its_end(child: subprocess.Popen[bytes]) -> None:
    watch = FilterWatch(Filters(pid=child.pid))
    stat = Path(f"/proc/{child.pid}/stat").read_text().split()
    assert watch.started == int(stat[21]) * TICK
    assert len(watch.wait_fds()) == 1
    assert (watch.check(), watch.notices) == (False, ())
    end(child)
    assert watch.check()
    (notice,) = watch.notices
    assert (notice.kind, notice.pid, notice.cgroup) == ("process_ended", child.pid, None)
    assert notice.comm == Path(sys.executable).name[:15]
    # No process passes from now on, and nothing is waited for any more.
    assert (watch.started, watch.wait_fds()) == (ENDED, ())
    assert (watch.check(), watch.notices) == (False, (notice,))


def test_the_descriptor_is_closed_with_the_object(child: subprocess.Popen[bytes]) -> None:
    watch = FilterWatch(Filters(pid=child.pid))
    (fd,) = watch.wait_fds()
    os.fstat(fd)
    del watch
    gc.collect()
    assert not Path(f"/proc/self/fd/{fd}").exists()
    end(child)


def test_a_process_that_ends_while_it_is_looked_at_is_none(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What /proc says of its pid then may be of another one."""
    read = kernel.read_text

    def late(path: str | Path) -> str | None:
        if str(path).endswith("/stat"):
            end(child)
            return STAT
        return read(path)

    monkeypatch.setattr(kernel, "read_text", late)
    with pytest.raises(ProbeError, match=f"there is no process {child.pid}"):
        FilterWatch(Filters(pid=child.pid))


@pytest.mark.parametrize(
    ("offsets", "started"),
    [
        (None, 123456 * TICK),
        ("monotonic 5 5\nboottime 0 0", 123456 * TICK),
        ("monotonic 5 5\nboottime -86400 500000000", 123456 * TICK + 86_399_500_000_000),
        ("boottime 9000000 0", 0),
        ("nonsense\n\nboottime x y", 123456 * TICK),
    ],
)
def test_starts_are_those_of_the_initial_time_namespace(
    offsets: str | None, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names hold anything, and in a time namespace /proc adds an offset."""
    files = {"/proc/811/stat": STAT, "/proc/self/timens_offsets": offsets}
    monkeypatch.setattr(kernel, "read_text", lambda path: files[str(path)])
    assert filter_watch._start_of(811) == started


def test_a_pid_of_another_namespace_is_held_and_said_to_be_one(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "in_initial_pid_namespace", lambda: False)
    watch = FilterWatch(Filters(pid=child.pid))
    assert [(n.kind, n.pid) for n in watch.notices] == [("pid_of_namespace", child.pid)]
    assert watch.started is not None
    end(child)
    assert watch.check()
    assert [n.kind for n in watch.notices] == ["pid_of_namespace", "process_ended"]


def test_the_idle_task_and_no_process_are_not_watched() -> None:
    for filters in (Filters(), Filters(pid=0), Filters(comm="a", uid=0)):
        watch = FilterWatch(filters)
        assert (watch.check(), watch.started, watch.notices) == (False, None, ())


@pytest.mark.parametrize("pid", [2**31 - 1, 2**31, 2**32 - 1, -1])
def test_a_number_that_no_process_can_have_is_no_process(pid: int) -> None:
    """Those who ask over a link may send any number."""
    with pytest.raises(ProbeError, match=f"there is no process {pid}"):
        FilterWatch(Filters(pid=pid))


def test_a_cgroup_that_goes_and_comes_back(mount: Path) -> None:
    watch = FilterWatch(Filters(cgroup="/a"))
    assert (watch.check(), watch.notices) == (False, ())
    (mount / "a").rename(mount / "away")
    assert not watch.check()
    (removed,) = watch.notices
    assert (removed.kind, removed.cgroup, removed.pid) == ("cgroup_removed", "/a", None)
    assert (watch.check(), watch.notices) == (False, (removed,))
    make(mount / "a")
    assert watch.check()
    (back,) = watch.notices
    assert (back.kind, back.cgroup) == ("cgroup_followed", "/a")
    assert back.seconds == pytest.approx(back.time - removed.time, abs=1.0)
    assert (watch.check(), watch.notices) == (False, (back,))


@pytest.mark.parametrize("path", ["/a", "/a/b/c"])
def test_a_cgroup_that_is_made_again_wakes_its_reader(mount: Path, path: str) -> None:
    """Also where those above it are made again: nobody waits for the next look."""
    for part in ("a/b", "a/b/c"):
        make(mount / part)
    watch = FilterWatch(Filters(cgroup=path))
    (fd,) = watch.wait_fds()
    assert select.select([fd], [], [], 0) == ([], [], [])
    (mount / "a").rename(mount.parent / f"{mount.name}-away")
    assert select.select([fd], [], [], 60)[0] == [fd]
    assert not watch.check()
    assert select.select([fd], [], [], 0) == ([], [], [])
    for part in ("a", "a/b", "a/b/c"):
        make(mount / part)
        assert select.select([fd], [], [], 60)[0] == [fd]
        assert watch.check() == (f"/{part}" == path)
        if f"/{part}" == path:
            break
    assert [notice.kind for notice in watch.notices] == ["cgroup_followed"]


def test_many_cgroups_beside_it_keep_nobody_busy(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filter_watch, "LOOK_SECONDS", 3600.0)
    watch = FilterWatch(Filters(cgroup="/a"))
    for _ in range(filter_watch.MOST_WAKES):
        assert len(watch.wait_fds()) == 1
        watch.check()
    assert watch.wait_fds() == ()
    monkeypatch.setattr(filter_watch, "LOOK_SECONDS", 0.0)
    watch.check()
    assert len(watch.wait_fds()) == 1


def test_the_root_of_all_cgroups_is_not_waited_for(mount: Path) -> None:
    assert FilterWatch(Filters(cgroup="/")).wait_fds() == ()


def test_only_a_cgroup_is_looked_at_between_frames(mount: Path) -> None:
    assert FilterWatch(Filters(comm="a")).wait() is None
    assert FilterWatch(Filters(cgroup="/a")).wait() == filter_watch.LOOK_SECONDS


def test_a_cgroup_that_cannot_be_looked_at_is_not_said_to_be_gone(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = FilterWatch(Filters(cgroup="/a"))

    def refuse(path: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(filter_watch, "_inode_of", refuse)
    assert (watch.check(), watch.notices) == (False, ())


def test_no_cgroup_is_refused(mount: Path) -> None:
    with pytest.raises(ProbeError, match="/b is no cgroup"):
        FilterWatch(Filters(cgroup="/b"))


def test_files_are_looked_up_only_as_the_process_that_was_meant_sees_them(
    child: subprocess.Popen[bytes],
) -> None:
    started = FilterWatch(Filters(pid=child.pid)).started
    assert started is not None
    check_started(child.pid, started)
    check_started(child.pid, None)
    for other in (ENDED, started + TICK, started - TICK):
        with pytest.raises(ProbeError, match=f"the filtered process {child.pid} has ended"):
            check_started(child.pid, other)
    end(child)
    with pytest.raises(ProbeError, match="has ended"):
        check_started(child.pid, started)
