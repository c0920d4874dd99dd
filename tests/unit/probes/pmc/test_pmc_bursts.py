# SPDX-License-Identifier: Apache-2.0
"""Counters while switches are looked at in bursts: what is exact and what is estimated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import msgspec
import pytest

from probes.budget.policy import DETACHED, QUICK_BURSTS, SAMPLED, SAMPLING
from probes.core import kernel
from probes.core.estimates import duty_object, factor
from probes.core.frame import Frame, Host
from probes.core.readings import Reading
from probes.core.sample import Sample
from probes.ipc.messages import BurstReport
from probes.pmc import probe as pmc
from probes.pmc.bursts import CLOCK, IPC, SWITCHES
from probes.pmc.contract import pmc_contract
from probes.pmc.probe import PmcProbe
from probes.pmc.sample import PmcSample, TaskTimes
from probes.pmc.sum import PmcSum
from probes.pmc.view import pmc_view
from probes.recording.codec import FrameCodec
from probes.report.window_rows import RowSum
from probes.sums.accumulators import Tick
from tests.unit.metrics_feed import nowhere, values
from tests.unit.pmc_feed import Feed
from tests.unit.probes.pmc.test_pmc_probe import Kernel
from tui.agent.metrics.collector import Metrics
from tui.commands.figures import Key, estimated_of, figures_of, probe_type
from tui.export.pmc import pmc_tables

MS = 1_000_000
PERIOD, ON = 200 * MS, 10 * MS
EVENTS = ("cycles", "instructions")


class Played:
    """A probe whose kernel is played, in bursts of 10 ms every 200."""

    def __init__(self, probe: PmcProbe) -> None:
        self.kernel = Kernel(EVENTS)
        self.probe = probe
        self.wishes: list[tuple[Any, ...]] = []
        probe.meter.attach_in = lambda *wish: self.wishes.append(wish)
        probe.adopt(self.kernel.loaded())
        self.at, self.number = 1000 * MS, 0

    def pause(self) -> None:
        self.report("paused", end=self.at)

    def report(self, kind: str, **times: int) -> None:
        self.probe.burst(BurstReport(0, None, self.number, kind, **times))  # type: ignore[arg-type]

    def burst(
        self, switches: int, cycles: int = 3000, instructions: int = 1500, pid: int = 7
    ) -> None:
        """A process has one CPU for half of the burst, the other one rests."""
        counts = {"cycles": (cycles, ON // 2), "instructions": (instructions, ON // 2)}
        if cycles:
            self.kernel.ran(0, 3, pid, ON // 2, switches=switches, wait=500, counts=counts)
        whole = {"cycles": Reading(60_000, PERIOD, PERIOD)}
        self.kernel.cpu(0, whole, time=PERIOD, busy=ON // 2, idle=ON // 2, switches=2 * switches)
        self.kernel.cpu(1, time=PERIOD, idle=ON)
        self.number += 1
        begin = self.at + PERIOD // 2
        self.report("burst", since=self.at, begin=begin, end=begin + ON, until=self.at + PERIOD)
        self.at += PERIOD

    def sample(self) -> PmcSample:
        return self.probe.read(1.0)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    monkeypatch.setattr(kernel, "online_cpus", lambda: [0, 1])
    monkeypatch.setattr(pmc, "kinds", dict)
    monkeypatch.setattr(pmc, "sockets", dict)
    real = kernel.read_text
    monkeypatch.setattr(
        kernel, "read_text", lambda path: "0-1" if path == pmc.ONLINE else real(path)
    )
    made = PmcProbe()
    found = Played(made)
    # A CPU's time begins somewhere.
    found.kernel.cpu(0, {"cycles": Reading(0, 1, 1)}, time=1)
    found.kernel.cpu(1, {"cycles": Reading(0, 1, 1)}, time=1)
    found.sample()
    yield found
    made.release()
    found.kernel.close()


def sampled(played: Played, bursts: int = 5) -> tuple[PmcSample, PmcSample]:
    """What was counted before, and what with bursts of a steady load."""
    played.kernel.ran(0, 3, 7, 40, switches=2)
    played.kernel.cpu(0, {"cycles": Reading(9, 0, 0)}, time=40, busy=40, switches=4)
    played.kernel.cpu(1, {"cycles": Reading(9, 0, 0)}, time=40, idle=40)
    before = played.sample()
    played.pause()
    for _ in range(bursts):
        played.burst(100)
    return before, played.sample()


def test_the_ladder_is_bursts_and_then_detached(played: Played) -> None:
    (part,) = played.probe.parts()
    assert (part.levels[0].words, part.levels[-1]) == ("", DETACHED)
    assert [level.duty for level in part.levels[1:-1]] == [1 / 4, 1 / 16, 1 / 64]
    for level, (on, period) in enumerate(QUICK_BURSTS, 1):
        assert played.probe.give_up("", level, "why", "fix") is False
        assert played.wishes[-1] == (0, None, on, period)
        assert (played.probe.given_up() or "").startswith(SAMPLING)
    played.pause()
    assert played.probe.give_up("", 0, "", "") is False
    assert played.wishes[-1] == (0, None, 0, QUICK_BURSTS[0][1])
    assert played.probe.given_up() is None
    assert played.probe.parts()[0].levels is SAMPLED


def test_bursts_are_estimates_and_nothing_of_them_is_counted(played: Played) -> None:
    before, after = sampled(played)
    assert before.tasks == {7: TaskTimes(40, 2, 0, 0)}
    assert after.tasks == before.tasks
    assert after.cpus == before.cpus
    assert after.duty is not None
    assert after.duty.bursts == 5
    assert after.duty.seconds == pytest.approx(1.0)
    assert after.duty.on == pytest.approx(0.05)
    assert after.estimated[7, CLOCK].n == 500 * MS
    assert after.estimated[7, "cycles"].n == 5 * 3000 * 20
    # The price of being traced makes somewhat more of it.
    assert 5 * 100 * 20 <= after.estimated[7, SWITCHES].n < 5 * 100 * 20 * 1.05
    assert after.estimated_cpus[1, "idle"].n == 1000 * MS
    assert after.estimated_machine["busy"].n + after.estimated_machine["idle"].n == 2000 * MS
    # A steady load has no more error than that of counting at random.
    assert after.estimated[7, CLOCK].variance < (MS // 10) ** 2


def test_a_cpus_own_counters_go_on_exactly_between_bursts(played: Played) -> None:
    before, after = sampled(played)
    old, new = before.cpu_readings[0, "cycles"], after.cpu_readings[0, "cycles"]
    assert new.value - old.value == 5 * 60_000
    assert new.enabled - old.enabled == new.running - old.running == 5 * PERIOD
    view = pmc_view(before, after, 1.0)
    assert view.cpus[0].count("cycles") == 5 * 60_000
    assert not view.cpus[0].is_estimated("cycles")
    assert view.cpus[0].is_estimated("busy")


def test_what_was_charged_between_a_pause_and_its_report_is_in_no_burst(played: Played) -> None:
    played.kernel.ran(0, 3, 7, 40)
    played.pause()
    assert played.sample().tasks == {7: TaskTimes(40, 1, 0, 0)}
    played.burst(100)
    played.number += 1
    played.kernel.ran(0, 3, 7, 50)
    played.report("steady", begin=played.at)
    played.kernel.ran(0, 3, 7, 60)
    found = played.sample()
    # One burst alone is too few for an estimate.
    assert found.estimated == {}
    assert found.tasks == {7: TaskTimes(100, 2, 0, 0)}
    assert played.probe.uncounted(1e9) == played.probe.uncounted(2e9) > 0


@pytest.mark.parametrize("steady", [True, False])
def test_instructions_a_cycle_have_an_error_of_their_own(played: Played, steady: bool) -> None:
    before = played.sample()
    played.pause()
    for n in range(8):
        # Cycles differ widely between bursts, their ratio to instructions only if it is not steady.
        cycles = 2000 * (1 + n % 4)
        played.burst(10, cycles, cycles // 2 if steady else (cycles // 4) * (1 + 2 * (n % 2)))
    view = pmc_view(before, played.sample(), 1.6)
    (row,) = view.processes
    assert row.ipc == pytest.approx(0.5, rel=0.2)
    error, cycles_error = row.error(IPC, view.duty), row.error("cycles", view.duty)
    assert error is not None
    assert cycles_error is not None
    if steady:
        assert row.ipc == 0.5
        assert error < 0.001
    else:
        assert 0.05 < error < 0.3
    assert cycles_error / (row.count("cycles") or 1) > 0.1


def test_the_view_has_both_parts(played: Played) -> None:
    before, after = sampled(played)
    first = replace(before, tasks={}, readings={}, cpus={}, cpu_readings={})
    view = pmc_view(first, after, 1.0)
    (row,) = view.processes
    assert (row.pid, row.comm) == (7, "name")
    assert row.clock == 40 + 500 * MS
    assert row.switches > 10_000
    error = row.error(CLOCK, view.duty)
    assert error is not None
    assert error >= 0
    assert view.machine.busy == pytest.approx(0.25, rel=0.01)
    assert pmc_view(before, before, 1.0).duty is None


def test_processes_that_no_exact_row_knows_are_ranked(played: Played) -> None:
    before, _ = sampled(played)
    for _ in range(5):
        played.burst(100, cycles=9000, pid=8)
    view = pmc_view(before, played.sample(), 2.0)
    assert [row.pid for row in view.processes] == [8, 7]
    assert view.processes.row(8).count("cycles") == 5 * 9000 * 20


def test_a_row_of_one_burst_is_uncertain(played: Played) -> None:
    before = played.sample()
    played.pause()
    for n in range(8):
        played.burst(100, pid=7 if n == 3 else 9)
    view = pmc_view(before, played.sample(), 1.6)
    assert view.duty is not None
    once = view.processes.row(7)
    assert factor(view.duty) * (once.error(CLOCK, view.duty) or 0) > once.clock


def test_the_stream_says_what_is_estimated(played: Played) -> None:
    before, after = sampled(played)
    told = pmc_contract(before, after, 1.0)
    (row,) = told["processes"]
    assert row["estimated"][CLOCK] == row["task_clock"] == 500 * MS
    assert row["estimated"]["cycles"] == row["cycles"]
    assert row["error"].keys() == {*row["estimated"], "ipc"}
    assert set(row["estimated"]) == {CLOCK, SWITCHES, "wait", "cycles", "instructions"}
    cpu = told["cpus"][0]
    assert set(cpu["estimated"]) == {"busy", "idle", SWITCHES}
    (exact,) = pmc_contract(None, before, 1.0)["processes"]
    assert "estimated" not in exact
    assert "error" not in exact


def frame(sample: Sample, at: float) -> Frame:
    return Frame(time=at, mono=at, interval=1.0, host=Host(), samples={"pmc": sample})


def test_recordings_sums_and_windows_keep_the_parts_apart(played: Played) -> None:
    before, after = sampled(played)
    codec = FrameCodec()
    first = codec.decode(codec.encode(frame(before, 1.0)))
    text = codec.encode(frame(after, 2.0), frame(before, 1.0))
    again = codec.decode(text, first).samples["pmc"]
    assert isinstance(again, PmcSample)
    assert (again.estimated, again.estimated_cpus) == (after.estimated, after.estimated_cpus)
    assert (again.estimated_machine, again.duty) == (after.estimated_machine, after.duty)
    total, tick = PmcSum(), Tick(1.0)
    total.add(before, after, tick)
    whole = total.sample()
    assert isinstance(whole, PmcSample)
    assert whole.estimated == dict(after.estimated)
    assert whole.duty == after.duty
    assert tick.counts["idle"] == 1500 * MS
    rows = RowSum(PmcSample)
    rows.add(before, after)
    view = pmc_view(*rows.between(before, after), 1.0)  # type: ignore[arg-type]
    assert view.processes.row(7).clock == 500 * MS
    rows.subtract(before, after)
    assert rows._tables["estimated"] == {}


def test_the_dead_are_forgotten_with_their_estimates(played: Played) -> None:
    gone = 1 << 23
    played.pause()
    for _ in range(5):
        played.burst(100, pid=gone)
    for now in (1.0, 12.0, 23.0):
        found = played.probe.read(now)
        assert (gone, CLOCK) in found.estimated
        assert found.comms[gone] == "name"
    found = played.probe.read(34.0)
    assert found.estimated == {}
    assert gone not in found.comms


def test_the_pane_marks_estimates_and_draws_no_state_in_red(played: Played) -> None:
    before, after = sampled(played)
    words = "sampling 1 s in 16: over 2 % CPU (probe 9.1 %)"
    feed = Feed()
    feed(1, before)
    feed(1, replace(after, given_up=words, since=1.0))
    title = feed.headline()
    assert "ctx ~" in title
    assert "±" in title
    assert "sampling 1 s in 16  over 2 % CPU (probe 9.1 %)" in title
    assert all(style != "bad" for text, style in feed.pane.headline() if "sampling" in text)
    assert "cpu ±" in feed.columns()
    row = feed.row("name")
    assert row["cpu"].startswith("~50")
    assert row["±"].endswith("%")
    assert row["ctx/s"].startswith("~")
    assert row["IPC"].startswith("~0.50")
    feed.pane.move("down")
    assert feed.pane.enter()
    texts = feed.texts()
    assert any("cpu ~50" in text and "IPC ~0.50" in text for text in texts)
    assert any("context switches" in text and "~" in text for text in texts)
    assert feed.pane.back()
    # Where all is counted again nothing is marked.
    feed(1, replace(after, tasks={7: TaskTimes(10**9, 9, 0, 0)}))
    assert "~" not in feed.headline()
    assert "±" not in feed.columns()


def test_series_of_estimates_are_apart(played: Played) -> None:
    before, after = sampled(played)
    metrics = Metrics(read=nowhere)
    metrics.add(frame(before, 1.0))
    exact = values(metrics)
    metrics.add(frame(after, 2.0))
    then = values(metrics)

    def of(name: str) -> dict[Any, float]:
        return {key: n for key, n in then.items() if key[0] == name}

    for key, n in exact.items():
        if key[0] in ("probetop_context_switches_total", "probetop_cpu_seconds_total"):
            assert then[key] == n
    assert not [key for key in exact if key[0].startswith("probetop_context_switches_estimated")]
    (switches,) = of("probetop_context_switches_estimated_total").values()
    assert switches == after.estimated_machine[SWITCHES].n
    (busy,) = of("probetop_cpu_busy_seconds_estimated_total").values()
    assert busy == pytest.approx(0.5)
    assert sum(of("probetop_process_cpu_seconds_estimated_total").values()) == pytest.approx(0.5)


def test_a_page_marks_estimates_with_their_error(played: Played) -> None:
    before, after = sampled(played)
    total = PmcSum()
    total.add(before, after, Tick(1.0))
    whole = total.sample()
    probe = {
        **pmc_contract(None, cast(PmcSample, whole), 1.0),
        "seconds": 1.0, "others": {}, "duty": duty_object(whole.duty),
    }  # fmt: skip
    cpus, processes = pmc_tables(probe)
    (row,) = processes.rows
    names = [column.name for column in processes.columns]
    shown = dict(zip(names, [cell.text for cell in row], strict=True))
    assert shown["CPU"].startswith("~50")
    assert shown["±"].endswith("%")
    assert shown["switches/s"].startswith("~")
    assert shown["IPC"].startswith("~")
    first = dict(zip([c.name for c in cpus.columns], cpus.rows[0], strict=True))
    assert first["busy"].text.startswith("~")
    # The counters of a CPU are exact.
    assert not first["cycles/s"].text.startswith("~")


def test_a_comparison_takes_the_errors_into_account(played: Played) -> None:
    before, after = sampled(played)
    total = PmcSum()
    total.add(before, after, Tick(1.0))
    whole = total.sample()
    told = pmc_contract(None, cast(PmcSample, whole), 1.0)
    told |= {"seconds": 1.0, "duty": duty_object(whole.duty), "others": {}}
    schema = PmcSample.schema
    probe = msgspec.convert(told, probe_type("pmc", schema))
    key = Key("process", "name", "% of a CPU")
    found = figures_of(probe, schema)[key]
    assert found.value == 50
    error = told["processes"][0]["error"][CLOCK]
    assert found.error >= error / 1e7
    assert estimated_of(probe, schema) == pytest.approx(1.0)
    exact = msgspec.convert({**told, "duty": None}, probe_type("pmc", schema))
    assert figures_of(exact, schema)[key].error == 0
