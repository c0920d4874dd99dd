# SPDX-License-Identifier: Apache-2.0
"""Whose series there are: bounded, by activity, and together always the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.core import kernel, process_keys
from probes.core.readings import Reading
from probes.core.sample import Counts, Histogram
from probes.host import cgroups
from probes.host.cgroups import cgroup_of
from probes.latency.sample import LatencySample, Target
from probes.pmc.sample import PmcSample, TaskTimes
from probes.syscalls.sample import SyscallSample
from tests.unit.metrics_feed import frame, nowhere, series
from tui.agent.metrics import top_series
from tui.agent.metrics.collector import Metrics
from tui.agent.metrics.families import OTHER
from tui.agent.metrics.latency_targets import MOST_SERIES
from tui.agent.metrics.syscall_counters import MOST_ERRNOS, MOST_TIMED, MOST_UNKNOWN
from tui.agent.metrics.top_series import (
    CALLS,
    IDLE_SECONDS,
    MOST_READS,
    RANK_SECONDS,
    REFRESHED,
    Crowd,
)


def shown(crowd: Crowd) -> dict[tuple[str, str], float]:
    return {(cgroup, comm): tally[CALLS] for cgroup, comm, tally in crowd.tallies()}


def whole(crowd: Crowd) -> float:
    return sum(shown(crowd).values()) + crowd.retired[CALLS]


class Clock:
    """A crowd, and time that passes in ticks; process N is named by itself."""

    def __init__(self, top: int, cgroups: int) -> None:
        self.crowd = Crowd(top, cgroups, lambda pid: f"/g{pid // 100}")
        self.now = 0.0

    def tick(self, seconds: float, **calls: int) -> None:
        """So many calls by each process, "p" and its number; then all of them are ranked."""
        self.now += seconds
        self.crowd.begin(self.now)
        for name, n in calls.items():
            owner = self.crowd.owner(int(name[1:]), name)
            owner.tally[CALLS] += n
            owner.recent += n
        if self.crowd.end():
            self.crowd.rank()


def test_first_come_while_there_is_room_then_other() -> None:
    clock = Clock(top=2, cgroups=2)
    clock.tick(1, p1=10, p2=20, p3=30, p101=5, p201=7, p202=8)
    assert shown(clock.crowd) == {
        ("/g0", "p1"): 10, ("/g0", "p2"): 20, ("/g0", OTHER): 30,
        ("/g1", "p101"): 5,
        (OTHER, OTHER): 15,
    }  # fmt: skip


def test_the_more_active_displaces_and_nothing_is_moved() -> None:
    clock = Clock(top=1, cgroups=1)
    clock.tick(1, p1=10, p2=15)
    clock.tick(RANK_SECONDS, p1=10, p2=15)
    # Not clearly more active.
    assert shown(clock.crowd) == {("/g0", "p1"): 20, ("/g0", OTHER): 30}
    clock.tick(RANK_SECONDS, p1=1, p2=500)
    clock.tick(RANK_SECONDS, p1=1, p2=500)
    assert shown(clock.crowd) == {("/g0", "p2"): 500, ("/g0", OTHER): 531}
    assert clock.crowd.retired[CALLS] == 21
    # A whole control group as well.
    clock.tick(RANK_SECONDS, p101=90_000)
    clock.tick(RANK_SECONDS, p101=1, p2=1)
    assert shown(clock.crowd) == {("/g1", "p101"): 1, (OTHER, OTHER): 90_001}
    assert whole(clock.crowd) == 91_054


def test_who_is_idle_makes_room() -> None:
    clock = Clock(top=1, cgroups=9)
    clock.tick(1, p1=1_000_000, p101=1)
    for _ in range(12):
        clock.tick(IDLE_SECONDS / 10, p2=1, p101=1)
    clock.tick(RANK_SECONDS, p1=5, p2=1, p101=1)
    assert shown(clock.crowd) == {
        ("/g0", "p2"): 1, ("/g0", OTHER): 17, ("/g1", "p101"): 14,
    }  # fmt: skip
    assert whole(clock.crowd) == 1_000_000 + 13 + 14 + 5
    for _ in range(3):
        clock.tick(IDLE_SECONDS, p101=1)
    assert shown(clock.crowd) == {("/g1", "p101"): 17}


def test_a_process_that_is_called_other_is_among_the_others() -> None:
    crowd = Crowd(5, 5, lambda pid: OTHER if pid == 1 else "/g")
    crowd.begin(1)
    for pid in (1, 2):
        crowd.owner(pid, OTHER).tally[CALLS] += 1
    assert shown(crowd) == {("/g", OTHER): 1, (OTHER, OTHER): 1}


def test_names_that_look_the_same_are_one_series() -> None:
    crowd = Crowd(5, 5, {1: "/g\x01", 2: "/g\x02"}.get)
    crowd.begin(1)
    for pid, comm in ((1, "a\x01"), (2, "a\x02")):
        crowd.owner(pid, comm).tally[CALLS] += 1
    assert list(shown(crowd).values()) == [2]


def test_look_ups_are_bounded_and_made_up_for() -> None:
    asked: list[int] = []

    def read(pid: int) -> str:
        asked.append(pid)
        return "/found"

    crowd = Crowd(10_000, 10, read)
    crowd.begin(1)
    pids = range(MOST_READS + 50)
    for pid in pids:
        crowd.owner(pid, f"p{pid}").tally[CALLS] += 1
    assert len(asked) == MOST_READS
    assert sum(n for (cgroup, _), n in shown(crowd).items() if cgroup == "") == 50
    crowd.begin(2)
    assert sorted(set(asked)) == list(pids)
    assert len(asked) <= len(pids) + REFRESHED
    for pid in pids:
        crowd.owner(pid, f"p{pid}").tally[CALLS] += 1
    # What nobody knew then stays where it was counted.
    assert sum(n for (cgroup, _), n in shown(crowd).items() if cgroup == "") == 50
    assert whole(crowd) == 2 * len(pids)


def test_a_process_that_is_moved_counts_where_it_is() -> None:
    places: dict[int, str | None] = dict.fromkeys(range(100), "/before")
    crowd = Crowd(500, 5, lambda pid: places[pid])
    crowd.begin(1)
    for pid in places:
        crowd.owner(pid, f"p{pid}").tally[CALLS] += 1
    places.update({7: "/after", 99: "/after", 8: None})
    for tick in range(2, 2 + -(-len(places) // REFRESHED)):
        crowd.begin(tick)
    for pid in places:
        crowd.owner(pid, f"p{pid}").tally[CALLS] += 1
    found = shown(crowd)
    assert {key: n for key, n in found.items() if key[1] in ("p7", "p8", "p99")} == {
        ("/before", "p7"): 1, ("/after", "p7"): 1, ("/before", "p8"): 2,
        ("/before", "p99"): 1, ("/after", "p99"): 1,
    }  # fmt: skip
    # A new name is no reason to forget where it was, if it has gone meanwhile.
    places[7] = None
    assert crowd.name(7, "renamed").cgroup == "/after"
    crowd.keep(lambda pid: False)
    crowd.begin(99)
    assert not crowd.pids
    assert whole(crowd) == 200


@dataclass(frozen=True)
class Burst:
    """One tick of the property test: seconds that pass, and calls by process."""

    seconds: float
    calls: dict[int, int]


bursts = st.builds(
    Burst,
    st.sampled_from([0.0, 1.0, 10.0, 400.0, 2000.0]),
    st.dictionaries(st.integers(0, 499), st.integers(1, 10_000), max_size=12),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(bursts, max_size=20), st.integers(0, 3), st.integers(0, 3))
def test_every_count_is_in_one_series_and_they_are_bounded(
    ticks: list[Burst], top: int, cgroups: int
) -> None:
    crowd = Crowd(top, cgroups, lambda pid: f"/g{pid // 100}")
    now, sum_ = 0.0, 0
    before: dict[int, float] = {}
    for burst in ticks:
        now += burst.seconds
        crowd.begin(now)
        for pid, n in burst.calls.items():
            owner = crowd.owner(pid, f"p{pid % 10}")
            owner.tally[CALLS] += n
            owner.recent += n
            sum_ += n
        after = {id(tally): tally[CALLS] for _, _, tally in crowd.tallies()}
        assert all(after[key] >= n for key, n in before.items() if key in after)
        if crowd.end():
            crowd.keep(lambda pid, calls=burst.calls: pid in calls)  # type: ignore[misc]
            crowd.rank()
        assert whole(crowd) == sum_
        keys = [(cgroup, comm) for cgroup, comm, _ in crowd.tallies()]
        assert len(keys) == len(set(keys)) <= (top + 1) * cgroups + 1
        before = {id(tally): tally[CALLS] for _, _, tally in crowd.tallies()}


def test_a_week_of_short_processes_grows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """New processes, names, control groups, calls and targets at every tick."""
    monkeypatch.setattr(top_series, "MOST_OWNERS", 1000)
    metrics = Metrics(top=5, cgroups=7, read=lambda pid: f"/pod{pid // 3}")
    sizes: list[tuple[int, int]] = []
    for tick in range(400):
        pids = range(tick * 100, tick * 100 + 100)
        comms = {pid: f"job-{pid}" for pid in pids}
        name = f"syscall_{tick}"
        spec = f"uprobe:/tmp/{tick}:f"
        metrics.add(
            frame(
                tick * 1500.0,
                syscalls=SyscallSample(
                    state="on", comms=comms, calls={name: Counts(tick, 1)},
                    errnos={(name, f"E{tick % 99}"): 1},
                    matrix={(pid, name): Counts(2, 1) for pid in pids},
                    latency={name: Histogram({400: 1}, 1, 1)},
                ),
                pmc=PmcSample(
                    state="on", events=("cycles", f"r{tick}"),
                    tasks={pid: TaskTimes(10**6, 1, 0, None) for pid in pids},
                    cpu_readings={(0, f"r{tick}"): Reading(1, 1, 1)},
                    comms=comms,
                ),
                latency=LatencySample(
                    state="on",
                    targets={spec: Target(spec=spec, mechanism="uprobe", state="on")},
                ),
            )
        )  # fmt: skip
        crowd = metrics.crowd
        sizes.append((len(crowd.pids) + len(crowd._owners), len(metrics.render("")[0])))
    assert max(size for size, _ in sizes[200:]) <= max(size for size, _ in sizes[:100])
    assert max(size for _, size in sizes[200:]) <= 1.05 * max(size for _, size in sizes[100:200])
    calls = series(metrics, "probetop_process_syscalls_total")
    assert len(calls) <= 6 * 7 + 1
    assert sum(calls.values()) + metrics.crowd.retired[CALLS] == 400 * 100 * 2
    names = series(metrics, "probetop_syscalls_total")
    assert (len(names), sum(names.values())) == (MOST_UNKNOWN + 1, sum(range(400)))


def test_errnos_targets_and_timed_calls_are_bounded() -> None:
    metrics = Metrics(read=nowhere)
    names = [f"call{n}" for n in range(1500)]
    specs = [f"f{n}" for n in range(400)]
    histogram = Histogram({400: 1}, 1, 1000)
    metrics.add(
        frame(
            1,
            syscalls=SyscallSample(
                state="on", calls={name: Counts(1, 1) for name in names},
                errnos={(name, f"E{n}"): 1 for name in names for n in range(4)},
                latency=dict.fromkeys(names, histogram),
            ),
            latency=LatencySample(
                state="on",
                targets={
                    spec: Target(spec=spec, mechanism="kprobe", state="on", histogram=histogram)
                    for spec in specs
                },
            ),
        )
    )  # fmt: skip
    calls = series(metrics, "probetop_syscalls_total")
    assert (len(calls), sum(calls.values()), calls[(OTHER,)]) == (1025, 1500, 476)
    errors = series(metrics, "probetop_syscall_errors_total")
    assert sum(errors.values()) == 6000
    assert len(errors) <= MOST_ERRNOS + len(calls)
    timed = series(metrics, "probetop_syscall_latency_seconds_count")
    assert (len(timed), sum(timed.values())) == (MOST_TIMED + 1, 1500)
    targets = series(metrics, "probetop_latency_seconds_count")
    assert (len(targets), sum(targets.values())) == (MOST_SERIES + 1, 400)
    assert targets["", OTHER] == 400 - MOST_SERIES


def test_control_groups_have_the_names_that_people_use() -> None:
    class Name:
        unit, pod, namespace, container = "a.service", None, "prod\n", "c" * 999

    metrics = Metrics(name_of=lambda path: Name(), read=lambda pid: "/a" if pid == 1 else None)
    metrics.add(
        frame(
            1,
            syscalls=SyscallSample(
                state="on", comms={1: "x", 2: "y"},
                matrix={(1, "read"): Counts(1, 0), (2, "read"): Counts(2, 0)}, unattributed=3,
            ),
        )
    )  # fmt: skip
    # cgroup, comm, container, namespace, pod, unit
    assert series(metrics, "probetop_process_syscalls_total") == {
        ("/a", "x", "c" * 199 + "\u2026", "prod\ufffd", "", "a.service"): 1,
        ("", "y", "", "", "", ""): 2,
        (OTHER, OTHER, "", "", "", ""): 3,
    }


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/a.slice/b.service\n", "/a.slice/b.service"),
        ("0::/a (deleted)\n", "/a"),
        ("5:memory:/m\n1:name=systemd:/user.slice\n0::/\n", "/user.slice"),
        ("5:memory:/m\n1:name=systemd:/\n0::/\n", "/m"),
        ("0::/\n", "/"),
        ("0::/with:colons\n", "/with:colons"),
        ("0::/mine\r0::/system.slice/a.service\n", "/mine\r0::/system.slice/a.service"),
        ("0::/mine\u20280::/a\n", "/mine\u20280::/a"),
        ("", None),
        ("nonsense\n", None),
    ],
)
def test_reading_the_control_group(
    text: str, path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cgroup"
    file.write_text(text)
    monkeypatch.setattr(cgroups, "open", lambda name, mode: file.open(mode), raising=False)
    assert cgroup_of(1) == path


def test_a_process_that_is_not_there() -> None:
    assert cgroup_of(2**22 + 1) is None
    assert cgroup_of(os.getpid()) is not None


def test_no_control_group_is_read_by_a_pid_of_another_namespace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert cgroup_of(os.getpid()) is not None
    monkeypatch.setattr(kernel, "in_initial_pid_namespace", lambda: False)
    assert cgroup_of(os.getpid()) is None


def test_the_next_process_with_a_pid_counts_under_its_own_name() -> None:
    crowd = Crowd(10, 10, lambda pid: f"/group-of-{pid}")
    crowd.begin(1.0)
    first, second = 7, 7 + (1 << process_keys.PID_BITS)
    assert crowd.name(first, "alpha").comm == "alpha"
    assert crowd.name(second, "beta").comm == "beta"
    assert crowd.owner(first, "").comm == "alpha"
    assert crowd.owner(second, "").cgroup == "/group-of-7"


HIDDEN = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
assert libc.mount(None, b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
assert libc.mount(b"proc", b"/proc", b"proc", 0, sys.argv[2].encode()) == 0
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
from probes.host.cgroups import cgroup_of
print(os.path.exists(f"/proc/{sys.argv[1]}/cgroup"), cgroup_of(int(sys.argv[1])))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount /proc")
@pytest.mark.parametrize("how", ["hidepid=1", "hidepid=2"])
def test_who_is_hidden_in_proc_is_found_among_the_members_of_groups(how: str) -> None:
    arguments = [sys.executable, "-c", HIDDEN, str(os.getpid()), how]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"False {cgroup_of(os.getpid())}\n"
