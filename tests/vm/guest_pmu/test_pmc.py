# SPDX-License-Identifier: Apache-2.0
"""Our counters against what the workload did, and against `perf stat` of the same work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import pytest

from probes.core.estimates import factor
from probes.pmc.bursts import IPC
from probes.pmc.sample import PmcSample
from probes.pmc.view import pmc_view
from tests.kernel.counting import Counting
from tests.kernel.harness import Work, eventually
from tests.vm.guest_pmu.perf import PerfStat

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]
N = 400_000_000
"""Instructions of a run."""
SHARED = {f"instructions{i}": f"instructions{i}=r8" for i in range(8)}
"""One event (INST_RETIRED) eight times, which is more than there are counters."""


@pytest.fixture(scope="module")
def live() -> Iterator[Counting]:
    with Counting() as source:
        rest(source)
        yield source


def rest(live: Counting) -> None:
    """Let it hardly poll by itself, so that the test says when it is read."""
    live.source.set_interval(60)
    time.sleep(0.5)


def read(live: Counting) -> PmcSample:
    """All that was counted until now; twice, as a row may enter a list after it was read."""
    for _ in range(2):
        sample = live.probes["pmc"].read(time.monotonic())
    return cast(PmcSample, sample)


class Seen:
    """One run of the workload: its own count, perf's counts, ours of its process and CPU."""

    def __init__(
        self,
        live: Counting,
        program: Program,
        directory: Path,
        events: tuple[str, ...],
        of_cpu: bool,
        bursts: int = 1,
    ) -> None:
        with Work(program("counted"), str(N), str(bursts)) as work:
            perf = PerfStat(events, directory / "record", None if of_cpu else work.pid)
            with perf:
                before = read(live)
                (self.made,) = work.work()
                after = read(live)
        view = pmc_view(before, after, 1)
        self.perf = perf.counts
        self.process = next(row for row in view.processes if row.pid == work.pid).counts
        (cpu,) = view.cpus
        self.cpu = cpu.counts
        print(f"made {self.made}, perf {self.perf}\nprocess {self.process}\nCPU {self.cpu}")


@pytest.mark.parametrize("bursts", [1, 100])
def test_a_process_is_as_perf_has_it(
    live: Counting, program: Program, tmp_path: Path, bursts: int
) -> None:
    events = ("cycles", "instructions", "instructions:u")
    seen = Seen(live, program, tmp_path, events, of_cpu=False, bursts=bursts)
    for event in events[:2]:
        assert seen.process[event].value == pytest.approx(seen.perf[event].value, rel=0.01)
        assert seen.process[event].share == seen.perf[event].share == 1
    assert seen.process["instructions"].value == pytest.approx(seen.made, rel=0.01)
    assert seen.perf["instructions:u"].value == pytest.approx(seen.made, rel=0.01)


def test_a_cpu_is_as_perf_has_it(live: Counting, program: Program, tmp_path: Path) -> None:
    """With sleeps: the cycles of idle time are among the CPU's, and nobody's else."""
    events = ("cycles", "instructions")
    seen = Seen(live, program, tmp_path, events, of_cpu=True, bursts=100)
    for event in events:
        assert seen.cpu[event].value == pytest.approx(seen.perf[event].value, rel=0.01)
    cycles, of_process = seen.cpu["cycles"].value, seen.process["cycles"].value
    assert cycles is not None
    assert of_process is not None
    assert cycles > of_process


def test_in_bursts_a_cpu_stays_exact_and_a_process_is_within_its_interval(
    program: Program, tmp_path: Path
) -> None:
    with Counting(interval=0.5) as live, Work(program("counted"), str(N), "1") as work:
        probe = cast(Any, live.probes["pmc"])
        live.source._command(lambda: probe.meter.attach_in(probe._unit, None, 48, 192))
        eventually("there are estimates", lambda: probe.totals.bursts.duty and live.pmc().estimated)
        perf = PerfStat(("instructions",), tmp_path / "record", None)
        before = live.pmc()
        begun = time.monotonic()
        with perf:
            (made,) = work.work()
        took = time.monotonic() - begun
        bursts = before.duty.bursts if before.duty else 0
        eventually("the last bursts are told", lambda: _bursts(live) > bursts + 8)
        after = live.pmc()
    view = pmc_view(before, after, 1)
    row = next(row for row in view.processes if row.pid == work.pid)
    (cpu,) = view.cpus
    error = row.error("instructions", view.duty)
    print(f"made {made}, perf {perf.counts}\nprocess {row.counts} {error}\nCPU {cpu.counts}")
    assert view.duty is not None
    assert error is not None
    assert row.is_estimated("instructions", "cycles")
    # Three times as wide as the interval of 95 %: this is one run, not many. A burst stands for its
    # period: at both ends of the work a part of one may be missing, or too much.
    edges = made * 0.192 / took
    assert abs((row.count("instructions") or 0) - made) <= 3 * factor(view.duty) * error + edges
    assert row.error(IPC, view.duty) is not None
    assert not cpu.is_estimated("instructions", "cycles")
    assert perf.counts["instructions"].value is not None
    assert (cpu.count("instructions") or 0) >= 0.99 * perf.counts["instructions"].value


def _bursts(live: Counting) -> int:
    duty = live.pmc().duty
    return 0 if duty is None else duty.bursts


def test_what_this_pmu_has_not_is_absent(live: Counting) -> None:
    sample = read(live)
    assert (sample.hardware, sample.reason) == (True, None)
    assert {"cycles", "instructions"} <= {*sample.events}
    assert sample.absent.keys() == {"cache-misses", "branches", "branch-misses"}
    assert set(sample.absent.values()) == {"the CPU has no such counter (ENOENT)"}


def test_user_mode_is_the_workloads_own(live: Counting, program: Program, tmp_path: Path) -> None:
    live.source.set_interval(0.1)
    live.set("mode", "user", mode="user")
    rest(live)
    seen = Seen(live, program, tmp_path, ("instructions:u",), of_cpu=False, bursts=100)
    found = seen.process["instructions"].value
    assert found == pytest.approx(seen.made, rel=0.001)
    assert found == pytest.approx(seen.perf["instructions:u"].value, rel=0.001)


def test_shares_of_the_time_are_perfs(live: Counting, program: Program, tmp_path: Path) -> None:
    """One after the other, for at the same time they would take counters from each other."""
    live.source.set_interval(0.1)
    live.source.toggle("pmc", False)
    live.wait("it is off", lambda frame: frame.samples["pmc"].state == "off")
    perf = PerfStat(["r8"] * len(SHARED), tmp_path / "record")
    with Work(program("counted"), str(N)) as work, perf:
        work.work()
    live.source.set_option("pmc", "mode", "all")
    live.source.set_option("pmc", "events", tuple(SHARED.values()))
    live.source.toggle("pmc", True)
    live.all_on("pmc")
    rest(live)
    with Work(program("counted"), str(N)) as work:
        before = read(live)
        (made,) = work.work()
        view = pmc_view(before, read(live), 1)
    counts = next(row for row in view.processes if row.pid == work.pid).counts
    print(f"made {made}, perf {perf.all}\nprocess {counts}")
    assert len(perf.all) == len(SHARED)
    mean = fmean(count.share for count in perf.all)
    assert mean < 0.9
    for name in SHARED:
        count = counts[name]
        assert count.share == pytest.approx(mean, abs=0.03)
        assert count.scaled
        assert count.value == pytest.approx(made, rel=0.05)
