# SPDX-License-Identifier: Apache-2.0
"""Windows: tables are of the time that the header says, also where a probe was off meanwhile."""

from __future__ import annotations

from dataclasses import replace

from textual.pilot import Pilot

from probes.core import histogram
from probes.core.frame import Frame
from probes.core.sample import Sample
from probes.execs.sample import ExecSample
from probes.latency.sample import LatencySample
from probes.report.windows import continues
from probes.syscalls.sample import SyscallSample
from tests.pilot.conftest import Run, footer, shown
from tests.pilot.fake import FakeSource
from tests.pilot.moments import Moments, header, painted
from tui.app.app import ProbetopApp
from tui.shared.text import fmt_count, fmt_ns


class DatedSource(FakeSource):
    """Says since when Samples may be compared, and counts from zero after a switch.

    `reset` begins the counters of system calls anew, as a probe that was loaded again does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generation = 1
        self._last: dict[str, Sample] = {}

    def toggle(self, probe: str, on: bool) -> None:
        super().toggle(probe, on)
        if probe == "syscalls" and on:
            self.reset()

    def reset(self) -> None:
        self.generation += 1
        self._totals = {name: [0, 0] for name in self._totals}
        for counted in (self._matrix, self._errnos, self._histograms):
            counted.clear()

    def frame(self) -> Frame:
        frame = super().frame()
        samples: dict[str, Sample] = {}
        for name, sample in frame.samples.items():
            if name == "syscalls" and sample.state == "on":
                sample = replace(sample, generation=self.generation)
            last = self._last.get(name)
            since = last.since if continues(last, sample) and last is not None else frame.mono
            samples[name] = replace(sample, since=since if sample.state == "on" else None)
        self._last = samples
        return replace(frame, samples=samples)


def calls(frame: Frame, name: str = "futex") -> int:
    sample = frame.samples["syscalls"]
    assert isinstance(sample, SyscallSample)
    return sample.calls[name].n


def row(app: ProbetopApp, pane: str, name: str) -> list[str]:
    """The words of a table's row."""
    lines = [line.replace("│", " ").split() for line in shown(app, pane).splitlines()]
    return next(words for words in lines if words and words[0] == name)


def rate(app: ProbetopApp) -> str:
    return row(app, "syscalls", "futex")[1]


def title(app: ProbetopApp, pane: str = "syscalls") -> str:
    return shown(app, pane).splitlines()[0]


async def begin(app: ProbetopApp, pilot: Pilot[int], source: FakeSource, ticks: int) -> Moments:
    moments = Moments()
    await moments.live(app, pilot, source, ticks - 1)
    return moments


async def test_w_goes_through_the_windows(run: Run) -> None:
    source = DatedSource()
    async with run(120, 40, ticks=1, source=source) as (app, pilot, _):
        moments = await begin(app, pilot, source, 75)
        interval = painted(app)
        for said, footed, start in (
            ("over 10 s", "the last 10 s", 65),
            ("over 60 s", "the last 60 s", 15),
            ("all 1:14", "all since the start", 1),
        ):
            await pilot.press("w")
            assert said in header(app)
            assert f"rates and percentiles of {footed}; graphs stay by interval" in footer(app)
            count = calls(moments.frames[75]) - calls(moments.frames[start])
            assert rate(app) == fmt_count(count / (75 - start))
            for name in ("syscalls", "execs", "latency", "pmc"):
                assert "over" not in title(app, name)
        await pilot.press("w")
        assert " over " not in header(app)
        assert painted(app) == interval


async def test_graphs_are_of_intervals_whatever_the_window_is(run: Run) -> None:
    source = DatedSource()
    async with run(120, 40, ticks=1, source=source) as (app, pilot, _):
        await begin(app, pilot, source, 20)
        graph = shown(app, "syscalls").splitlines()[1:3]
        await pilot.press("w")
        assert shown(app, "syscalls").splitlines()[1:3] == graph


async def test_percentiles_and_rates_of_targets_are_of_the_window(run: Run) -> None:
    source = DatedSource()
    async with run(120, 40, ticks=1, source=source) as (app, pilot, _):
        moments = await begin(app, pilot, source, 20)
        await pilot.press("w")
        old, new = (moments.frames[tick].samples["latency"] for tick in (10, 20))
        assert isinstance(old, LatencySample)
        assert isinstance(new, LatencySample)
        before, after = (sample.targets["runq"].histogram for sample in (old, new))
        spent = {at: n - before.buckets.get(at, 0) for at, n in after.buckets.items()}
        spent = {at: n for at, n in spent.items() if n}
        assert sum(spent.values()) == after.n - before.n
        wanted = [fmt_count((after.n - before.n) / 10)]
        wanted += [fmt_ns(histogram.percentile(spent, part)) for part in (0.5, 0.99)]
        assert row(app, "latency", "runq")[1:4] == wanted
        assert f"{fmt_count(after.n - before.n)} calls in 10 s" in shown(app, "latency")


async def test_programs_are_those_of_the_window(run: Run) -> None:
    source = DatedSource()
    async with run(120, 40, ticks=1, source=source) as (app, pilot, _):
        moments = await begin(app, pilot, source, 20)
        await pilot.press("w")
        old, new = (moments.frames[tick].samples["execs"] for tick in (10, 20))
        assert isinstance(old, ExecSample)
        assert isinstance(new, ExecSample)
        started = fmt_count((new.execs - old.execs) / 10)
        failed = fmt_count((new.failed - old.failed) / 10)
        assert f"2 Execs ─ {started}/s  failed {failed}/s" in title(app, "execs")


async def test_a_history_that_is_shorter_says_how_long_it_is(run: Run) -> None:
    source = DatedSource()
    async with run(120, 40, ticks=1, source=source) as (app, pilot, _):
        moments = await begin(app, pilot, source, 6)
        await pilot.press("w", "w")
        assert "5 of 60 s" in header(app)
        count = calls(moments.frames[6]) - calls(moments.frames[1])
        assert rate(app) == fmt_count(count / 5)


async def test_the_window_goes_along_with_time(run: Run) -> None:
    source = DatedSource()
    async with run(120, 40, ticks=1, source=source) as (app, pilot, _):
        moments = await begin(app, pilot, source, 5)
        await pilot.press("w")
        await moments.live(app, pilot, source, 20)
        count = calls(moments.frames[25]) - calls(moments.frames[15])
        assert rate(app) == fmt_count(count / 10)
        await pilot.press("left", "left", "left")
        assert painted(app) == moments.shown[22]
        assert "over 10 s" in header(app)
        await pilot.press("right")
        assert painted(app) == moments.shown[23]


async def test_a_probe_that_was_off_meanwhile_counts_from_when_it_came_back(run: Run) -> None:
    source = DatedSource()
    async with run(120, 40, ticks=1, source=source) as (app, pilot, _):
        moments = await begin(app, pilot, source, 12)
        await pilot.press("w", "1")
        await moments.live(app, pilot, source, 3)
        assert "off: press 1" in title(app)
        await pilot.press("1")
        await moments.live(app, pilot, source, 1)
        # The counters began within this interval.
        assert rate(app) == fmt_count(calls(moments.frames[16]) / 1)
        await moments.live(app, pilot, source, 4)
        count = calls(moments.frames[20]) - calls(moments.frames[16])
        assert rate(app) == fmt_count(count / 4)
        assert "over 4 s" in title(app)
        assert "over 10 s" in header(app)
        await moments.live(app, pilot, source, 10)
        count = calls(moments.frames[30]) - calls(moments.frames[20])
        assert rate(app) == fmt_count(count / 10)
        assert "over" not in title(app)


async def test_counters_that_restart_give_no_wrong_rate_in_any_window(run: Run) -> None:
    source = DatedSource()
    async with run(120, 40, ticks=1, source=source) as (app, pilot, _):
        moments = await begin(app, pilot, source, 12)
        source.reset()
        await moments.live(app, pilot, source, 5)
        count = calls(moments.frames[17]) - calls(moments.frames[13])
        for _ in range(3):
            await pilot.press("w")
            assert rate(app) == fmt_count(count / 4)
        assert "all 0:16" in header(app)
        assert "over 4 s" in title(app)
        await pilot.press("w", "left", "left", "left", "left")
        assert painted(app) == moments.shown[13]
        assert rate(app) == fmt_count(float(calls(moments.frames[13])))


async def test_since_the_start_outlives_the_history(run: Run) -> None:
    source = DatedSource()
    async with run(120, 40, ticks=1, source=source) as (app, pilot, _):
        app.view.session.history.seconds = 5.0
        moments = await begin(app, pilot, source, 70)
        assert app.view.session.history.first > 0
        await pilot.press("w", "w", "w")
        assert "all 1:09" in header(app)
        count = calls(moments.frames[70]) - calls(moments.frames[1])
        assert rate(app) == fmt_count(count / 69)


async def test_the_oldest_moment_that_is_kept_shows_its_own_interval(run: Run) -> None:
    source = DatedSource()
    async with run(120, 40, ticks=1, source=source) as (app, pilot, _):
        app.view.session.history.seconds = 5.0
        moments = await begin(app, pilot, source, 70)
        await pilot.press("left_square_bracket")
        tick = moments.tick_of(app)
        assert tick == app.view.session.history.first + 2
        count = calls(moments.frames[tick]) - calls(moments.frames[tick - 1])
        assert rate(app) == fmt_count(float(count))
        await pilot.press("left")
        assert "nothing older is kept" in footer(app)
        assert moments.tick_of(app) == tick
