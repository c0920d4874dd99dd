# SPDX-License-Identifier: Apache-2.0
"""Executions that fail, while they are looked for in bursts: counted, estimated, shown."""

from __future__ import annotations

from typing import Any

import pytest

from probes.budget.policy import SAMPLING
from probes.core.estimates import factor
from probes.core.sample import Duty, Estimate
from probes.execs.failed_execs import LEVELS, FailedExecs, failed_estimate
from probes.execs.probe import FAILED, ExecProbe
from probes.execs.sample import ExecEvent, ExecSample
from probes.execs.sum import ExecSum
from probes.host.cgroups import Cgroups
from probes.ipc.messages import BurstReport
from probes.sums.accumulators import Tick
from tests.unit.metrics_feed import frame, nowhere, values
from tests.unit.probes.execs.test_execs_decode import Ring, exec_record
from tui.agent.metrics.collector import Metrics
from tui.panes.execs import ExecPane
from tui.shared.styled_lines import line_text

MS = 1_000_000


def burst(number: int, since: int, begin: int, on: int = 60 * MS, **more: Any) -> BurstReport:
    times = {"since": since, "begin": begin, "end": begin + on, "until": since + 1000 * MS}
    return BurstReport(1, FAILED, number, "burst", **times, **more)


def test_counted_until_the_pause_and_since_the_end_of_bursts() -> None:
    one = FailedExecs()
    for time in (1, 2, 900 * MS):
        one.saw(time)
    one.count(3)
    # The last one happened when nobody counted any more, but was seen.
    one.pause(0.5)
    assert one.counted == 2
    one.count(50)
    for time in (1500 * MS, 2100 * MS, 2200 * MS):
        one.saw(time)
    one.count(53)
    one.resume(2000 * MS, 2.3)
    assert one.counted == 2 + 2
    one.count(60)
    assert one.counted == 2 + 2 + 7


def test_a_burst_has_what_failed_while_it_was_attached_for_certain() -> None:
    one = FailedExecs()
    one.pause(0.0)
    for number in range(5):
        since = number * 1000 * MS
        begin = since + 300 * MS
        # Before and after it programs may run already, or still.
        for time in (begin - MS, begin + MS, begin + 30 * MS, begin + 59 * MS, begin + 90 * MS):
            one.saw(time)
        one.add(burst(number, since, begin, edges=2 * MS))
    estimate, duty = one.estimated, one.duty
    assert duty is not None
    assert duty.bursts == 5
    assert duty.seconds == pytest.approx(5.0)
    assert duty.on == pytest.approx(5 * 0.056)
    assert estimate.n == round(5 / (5 * 0.056) * 5)
    assert estimate.variance > 0
    assert one.counted == 0


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> ExecProbe:
    monkeypatch.setattr(Cgroups, "path", lambda self, number, *pids: "/")
    made = ExecProbe()
    made._unit, made._watching, made._per_call = 1, True, 30.0
    counters = [0, 0, 0, 0]
    made._counters = lambda: counters  # type: ignore[method-assign]
    made.played = counters  # type: ignore[attr-defined]
    return made


def failing(probe: ExecProbe, *times: int) -> None:
    """Executions that fail at these times."""
    records = [exec_record(time=time, ret=-2, pid=n + 1) for n, time in enumerate(times)]
    probe._ring = Ring(records)  # type: ignore[assignment]
    probe.played[1] += len(times)  # type: ignore[attr-defined]


def test_the_ladder_is_bursts_then_nothing_of_what_fails(probe: ExecProbe) -> None:
    wishes: list[Any] = []
    dropped: list[Any] = []
    probe.meter.attach_in = lambda *wish: wishes.append(wish)
    probe.meter.detach = lambda *wish: dropped.append(wish)
    for level, wanted in enumerate(LEVELS[1:-1], 1):
        assert probe.give_up("failed", level, "", "") is False
        assert wishes[-1] == (1, FAILED, wanted.on, wanted.period)
        assert probe.given_up() == f"{SAMPLING} failures 1 s in {round(1 / wanted.duty)}"
        assert probe.meter.per_call == pytest.approx(30.0 * wanted.duty)
        assert probe.params()["failed"]
    assert probe.give_up("failed", len(LEVELS) - 1, "", "") is False
    assert dropped == [(1, [FAILED])]
    assert probe.given_up() == "no failed executions"
    assert not probe.params()["failed"]
    assert probe.meter.per_call == 0
    # What is gone has to be loaded anew.
    assert probe.give_up("failed", len(LEVELS) - 2, "", "") is True
    assert probe.params()["failed"]


def test_the_share_of_failures_is_their_part_of_the_cost(probe: ExecProbe) -> None:
    counters = probe.played  # type: ignore[attr-defined]
    counters[:] = [10, 30, 10, 0]
    whole, failed = probe.parts()
    assert whole.share == pytest.approx(0.4)
    assert failed.share == pytest.approx(0.6)
    counters[:] = [20, 30, 20, 0]
    assert [part.share for part in probe.parts()] == [1.0, 0.0]
    assert [part.share for part in probe.parts()] == [1.0, 0.0]


def test_bursts_of_the_probe_are_events_and_an_estimate(probe: ExecProbe) -> None:
    failing(probe, 1, 2)
    probe.drain()
    probe.burst(BurstReport(1, FAILED, 0, "paused", end=10))
    for number in range(4):
        since = 10 + number * 1000 * MS
        failing(probe, since + 101 * MS, since + 120 * MS, since + 400 * MS)
        probe.burst(burst(number + 1, since, since + 100 * MS))
    probe._ring = Ring([])  # type: ignore[assignment]
    found = probe.read(1.0)
    assert found.failed == 2
    assert found.failed_duty is not None
    assert found.estimated_failed.n == round(8 / (4 * 0.06) * 4)
    # All that was seen is told, also what was in no burst.
    assert len(found.events) == 2 + 12
    probe.burst(BurstReport(1, FAILED, 5, "steady", begin=5000 * MS))
    failing(probe, 5001 * MS)
    assert probe.read(2.0).failed == 3
    assert probe.uncounted(9.0) == 0.0


def test_what_cannot_be_attached_again_gives_up_failures_only(probe: ExecProbe) -> None:
    probe._ring = Ring([])  # type: ignore[assignment]
    probe.give_up("failed", 1, "", "")
    probe.burst(BurstReport(1, FAILED, 1, "failed"))
    assert probe.given_up() == "no failed executions"
    assert not probe._watching


def test_bursts_that_were_left_out_are_noted(probe: ExecProbe) -> None:
    failing(probe, 1)
    probe.burst(BurstReport(1, FAILED, 0, "paused", end=10))
    probe.burst(burst(1, 10, 20, skipped=3))
    probe._ring = Ring([])  # type: ignore[assignment]
    (note,) = probe.read(1.0).notes
    assert note.startswith("3 bursts were left out")


EVENT = ExecEvent(
    time=1.0, pid=1, ppid=1, uid=0, comm="a", parent="b", args=("a",), truncated=False, ret=-2,
    cgroup="/",
)  # fmt: skip
WORDS = "sampling failures 1 s in 16: over 2 % CPU (probe 4.0 %)"


def sample(spans: int, failed: int = 3, **more: Any) -> ExecSample:
    """With so many spans of four bursts, each of which stands for 400 failures."""
    duty = Duty(4 * spans, 0.24 * spans, 4.0 * spans, 0.0, 3 * spans) if spans else None
    estimate = Estimate(400 * spans, 900 * spans)
    return ExecSample(
        state="on", execs=5, failed=failed, failed_duty=duty, estimated_failed=estimate, **more
    )


def test_the_stream_has_the_estimate_where_there_is_one() -> None:
    told = ExecProbe.contract(sample(1), sample(2), 4.0)
    assert told["failed_estimated"] == 400
    assert told["failed_error"] == 30.0
    assert told["failed_duty"]["seconds"] == 4.0
    assert told["failed_duty"]["bursts"] == 4
    assert ExecProbe.contract(sample(2), sample(2), 1.0) == {"events": [], "dropped": 0}


def test_the_title_says_what_is_sampled_and_keeps_the_last_estimate() -> None:
    pane = ExecPane()
    frames = [
        frame(1.0, execs=sample(1)),
        frame(2.0, execs=sample(2, given_up=WORDS)),
        frame(3.0, execs=sample(2, given_up=WORDS)),
        frame(12.0, execs=sample(2, given_up=WORDS)),
    ]
    titles = []
    for before, after in zip([None, *frames], frames, strict=False):
        pane.update(before, after)
        spans = pane.headline()
        titles.append(line_text(tuple(spans)))
        assert all(style == "warn" for text, style in spans if "sampling" in text)
    within = factor(Duty(4, freedom=3)) * 30 / 400
    assert f"failed ~100/s ±{within:.0%}" in titles[1]
    assert "sampling failures 1 s in 16  over 2 % CPU (probe 4.0 %)" in titles[1]
    assert "failed ~100/s" in titles[2]
    # Too old to be shown as what happens now.
    assert "failed -/s" in titles[3]
    pane.update(frames[-1], frame(13.0, execs=sample(2)))
    assert "failed 0/s" in line_text(tuple(pane.headline()))


def test_sums_and_series_keep_the_parts_apart() -> None:
    total = ExecSum()
    for spans in (1, 2):
        total.add(sample(spans), sample(spans + 1, failed=5, given_up=WORDS), Tick(4.0))
    whole = total.sample()
    assert isinstance(whole, ExecSample)
    assert whole.estimated_failed == Estimate(800, 1800)
    assert whole.failed_duty == Duty(8, 0.48, 8.0, 0.0, 6)
    assert whole.failed == 4
    found = failed_estimate(None, whole)
    assert found is not None
    assert found.error == pytest.approx(1800**0.5)
    metrics = Metrics(read=nowhere)
    metrics.add(frame(1.0, execs=sample(1)))
    metrics.add(frame(2.0, execs=sample(2, given_up=WORDS, events=(EVENT,))))
    told = {name: n for (name, _), n in values(metrics).items()}
    assert told["probetop_execs_failed_estimated_total"] == 800
    assert told["probetop_execs_failed_estimated_variance_total"] == 1800
    assert told["probetop_execs_failed_estimated_seconds_total"] == 8.0
    results = {
        labels: n for (name, labels), n in values(metrics).items() if name == "probetop_execs_total"
    }
    assert frozenset({("result", "ENOENT")}) not in results
