# SPDX-License-Identifier: Apache-2.0
"""Bursts that child processes make: when, how often, and what becomes of those that fail."""

from __future__ import annotations

import errno
import mmap
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from probes.bpf import attach_again
from probes.bpf.attach_again import ChangedError
from probes.broker import long_bursts
from probes.broker.long_bursts import MOST_LINKS, MOST_SKIPPED, LongBursts
from probes.broker.units import Bound
from probes.core.errors import ProbeError
from probes.host.open_file import version_of
from probes.ipc.cpu_pace import BURST
from probes.ipc.messages import Burst, BurstReport, Recipe, Taken

MANY = 60.0
"""Seconds until something that should come soon has not."""


class Machine:
    """A unit whose group has links, and the gate that its programs would look at."""

    def __init__(self, *recipes: Recipe) -> None:
        self.gate = mmap.mmap(-1, mmap.PAGESIZE)
        self.recipes = list(recipes or [Recipe("uprobe_multi", places=((16, 0),))])
        self.alone = True
        self.paused = 0
        self.reports: list[BurstReport] = []
        self.bursts = LongBursts(self, self.reports.append)  # type: ignore[arg-type]

    def has_long(self, number: int, group: int) -> bool:
        return True

    def bound(self, number: int, group: int) -> Bound | None:
        return Bound(self.recipes, [0], [], self.gate) if self.alone else None

    def pause_all(self, number: int, group: int) -> None:
        self.paused += 1

    def ask(self, on: int = 20, period: int = 500, group: int | None = 3) -> bool:
        return self.bursts.ask(Burst(id=1, unit=1, group=group, on=on, period=period))

    def run(self, until: Callable[[], object], reads: bool = True) -> None:
        end = time.monotonic() + MANY
        while not until():
            assert time.monotonic() < end
            wait = self.bursts.timeout()
            poll = min(0.05, 0.05 if wait is None else wait)
            ready = select.select(self.bursts.sources, [], [], poll)[0]
            self.bursts.run(ready)
            if reads and self.reports:
                last = self.reports[-1]
                self.bursts.taken(Taken(id=2, unit=1, group=3, number=last.number))

    def made(self) -> list[BurstReport]:
        return [one for one in self.reports if one.kind == "burst"]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """One where attaching does nothing, and takes no time."""
    monkeypatch.setattr(attach_again, "check", lambda recipes, held: None)
    monkeypatch.setattr(attach_again, "attach", lambda *recipe: None)
    made = Machine()
    yield made
    made.bursts.close()


def refuse(error: Exception) -> Callable[..., None]:
    def attach(*recipe: Any) -> None:
        raise error

    return attach


def test_each_period_has_a_burst_and_nothing_counts_outside_of_it(machine: Machine) -> None:
    assert machine.ask()
    assert [one.kind for one in machine.reports] == ["paused"]
    assert machine.paused == 1
    machine.run(lambda: len(machine.made()) >= 4)
    found = machine.made()
    assert found[0].since == machine.reports[0].end
    for before, after in pairwise(found):
        assert before.until == after.since
        assert after.since <= after.begin
        assert after.begin + 20_000_000 <= after.end <= after.until
    assert all(one.cost > 0 for one in found)
    assert machine.gate[:8] == bytes(8)


def test_who_does_not_read_gets_no_more_bursts(machine: Machine) -> None:
    machine.ask()
    machine.run(lambda: machine.made())
    machine.run(lambda: not machine.bursts.sources, reads=False)
    many = len(machine.reports)
    begun = time.monotonic()
    machine.run(lambda: time.monotonic() - begun > 1.5, reads=False)
    assert len(machine.reports) <= many + 1
    assert machine.bursts.timeout() is None


@pytest.mark.parametrize("error", [OSError(errno.EEXIST, ""), ProbeError("held", "")])
def test_a_burst_that_cannot_be_made_now_is_left_out_and_counted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    machine.ask()
    machine.run(lambda: machine.made())
    monkeypatch.setattr(attach_again, "attach", refuse(error))
    schedule = machine.bursts._schedules[1, 3]
    machine.run(lambda: schedule.skipped >= 2)
    monkeypatch.setattr(attach_again, "attach", lambda *recipe: None)
    many = len(machine.made())
    machine.run(lambda: len(machine.made()) > many)
    before, last = machine.made()[-2:]
    assert last.skipped >= 2
    # It stands for the periods that had none.
    assert last.since == before.until
    assert last.until - last.since >= 2 * 500_000_000


def test_what_fails_time_after_time_has_failed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach_again, "attach", refuse(OSError(errno.ENOMEM, "")))
    monkeypatch.setattr(long_bursts, "MOST_SKIPPED", 1)
    machine.ask()
    machine.run(lambda: machine.reports[-1].kind == "failed")
    assert not machine.bursts._schedules
    assert MOST_SKIPPED > 1


def test_a_file_that_was_changed_is_never_attached_to_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach_again, "check", refuse(ChangedError("changed", "")))
    machine.ask()
    machine.run(lambda: machine.reports[-1].kind == "failed")


def test_the_version_of_a_file_is_compared_before_each_burst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probes.host.memory_locks.check", lambda file: None)
    path = tmp_path / "program"
    path.write_bytes(b"code")
    fd = os.open(path, os.O_RDONLY)
    recipe = Recipe("uprobe", version=version_of(os.fstat(fd)), places=((0, 0),))
    attach_again.check([recipe], [fd])
    with path.open("r+b") as file:
        file.write(b"tear")
        file.flush()
        os.utime(path, ns=(1, 1))
        with pytest.raises(ChangedError):
            attach_again.check([recipe], [fd])
    os.close(fd)


def test_the_version_is_compared_after_processes_were_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To ask all processes may take seconds, in which the file may be changed.
    path = tmp_path / "program"
    path.write_bytes(b"code")
    monkeypatch.setattr("probes.host.memory_locks.check", lambda file: os.utime(path, ns=(1, 1)))
    fd = os.open(path, os.O_RDONLY)
    recipe = Recipe("uprobe", version=version_of(os.fstat(fd)), places=((0, 0),))
    with pytest.raises(ChangedError):
        attach_again.check([recipe], [fd])
    os.close(fd)


def test_what_bursts_take_of_the_cpus_is_bounded(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attach(*recipe: Any) -> None:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    monkeypatch.setattr(attach_again, "attach", attach)
    machine.ask(on=1)
    machine.run(lambda: machine.made())
    left = BURST - machine.bursts._pace._left
    assert left > 0.01, "what a burst took is charged"
    machine.bursts._pace.charge(1e6)
    schedule = machine.bursts._schedules[1, 3]
    schedule.at = 0
    machine.bursts.run()
    assert not schedule.pid
    assert (machine.bursts.timeout() or 0.0) > 1.0, "nobody wakes up for it"


def test_what_a_killed_burst_took_is_charged(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attach(*recipe: Any) -> None:
        end = time.process_time() + MANY
        while time.process_time() < end:
            pass

    monkeypatch.setattr(attach_again, "attach", attach)
    machine.ask(on=1)
    schedule = machine.bursts._schedules[1, 3]
    schedule.at = 0
    machine.run(lambda: schedule.pid)
    time.sleep(0.5)
    machine.bursts.forget(1, [3])
    machine.run(lambda: not machine.bursts._ending)
    assert BURST - machine.bursts._pace._left > 0.01


def test_what_is_not_alone_or_has_too_many_links_is_refused() -> None:
    machine = Machine()
    machine.alone = False
    assert machine.ask()
    assert machine.reports[-1].kind == "failed"
    places = tuple((n, 0) for n in range(MOST_LINKS + 1))
    many = Machine(Recipe("uprobe", places=places))
    assert many.ask()
    assert many.reports[-1].kind == "failed"
    # By one link any number of places is attached to.
    multi = Machine(Recipe("uprobe_multi", places=places))
    assert multi.ask()
    assert multi.reports[-1].kind == "paused"


def test_a_whole_unit_is_for_the_quick_ones(machine: Machine) -> None:
    assert not machine.ask(group=None)
    assert not machine.reports


def test_what_is_detached_ends_its_child(machine: Machine) -> None:
    machine.ask(on=10_000, period=20_000)
    schedule = machine.bursts._schedules[1, 3]
    schedule.at = 0
    machine.run(lambda: schedule.pid)
    pid = schedule.pid
    machine.bursts.forget(1, [3])
    machine.run(lambda: not machine.bursts._ending)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not machine.bursts.sources


def test_descriptors_are_all_closed() -> None:
    pairs: Sequence[tuple[int, int]] = [os.pipe() for _ in range(40)]
    long_bursts._close([end for pair in pairs for end in pair])
    for end in (end for pair in pairs for end in pair):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(end)
