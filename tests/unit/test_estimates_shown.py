# SPDX-License-Identifier: Apache-2.0
"""What bursts stand for is shown as an estimate, and is in no series of what was counted."""

from __future__ import annotations

import pytest

from probes.core.estimates import factor
from probes.core.frame import Frame
from probes.core.sample import Counts, Duty, Estimate, Estimates, Sample
from probes.execs.sample import ExecSample
from probes.execs.sum import ExecSum
from probes.latency.sample import LatencySample, Target
from probes.sums.accumulators import Tick
from probes.syscalls.sample import SyscallSample
from tests.unit.metrics_feed import frame, nowhere, series
from tui.agent.metrics.collector import Metrics
from tui.panes.base import failed_lines
from tui.panes.execs import ExecPane
from tui.panes.latency import LatencyPane
from tui.panes.syscalls import SyscallPane
from tui.shared.styled_lines import line_text
from tui.shared.theme import ASCII, Theme

SAMPLING = "sampling 1 s in 16"
UNICODE = Theme()


def exact(reads: int) -> SyscallSample:
    """All reads were counted, one of ten failed."""
    return SyscallSample(
        state="on",
        calls={"read": Counts(reads, reads // 10)},
        errnos={("read", "EAGAIN"): reads // 10},
        matrix={(7, "read"): Counts(reads, reads // 10)},
        comms={7: "worker"},
        counted=1.0,
    )


def sampled(before: SyscallSample) -> SyscallSample:
    """A second later: five bursts stand for 16,000 reads, with a standard error of 400."""
    part = Estimates(16_000, 1_600, 400**2, 100**2)
    return SyscallSample(
        state="on",
        calls=before.calls,
        errnos=before.errnos,
        matrix=before.matrix,
        comms=before.comms,
        counted=1.0,
        given_up=SAMPLING,
        duty=Duty(bursts=5, on=0.0625, seconds=1.0, edges=0.0, freedom=4),
        estimated={"read": part},
        estimated_errnos={("read", "EAGAIN"): Estimate(1_600, 100**2)},
        estimated_matrix={(7, "read"): part},
        estimated_processes={7: part},
        estimated_total=part,
    )


def shown(theme: Theme = UNICODE) -> tuple[SyscallPane, Frame, Frame]:
    pane = SyscallPane()
    pane.theme = theme
    first = frame(1.0, syscalls=exact(100))
    second = frame(2.0, syscalls=sampled(exact(100)))
    pane.update(None, first)
    pane.update(first, second)
    return pane, first, second


@pytest.mark.parametrize(("theme", "mark"), [(UNICODE, "±"), (Theme(ASCII), "+-")])
def test_the_title_says_that_it_is_an_estimate_and_how_far_off(theme: Theme, mark: str) -> None:
    pane, _, _ = shown(theme)
    off = round(100 * factor(Duty(5, freedom=4)) * 400 / 16_000)
    title = line_text(tuple(pane.headline()))
    assert title == f"~16.0k/s {mark}{off}%  {SAMPLING}  err ~1.60k/s"
    assert off == 7  # Student's t for four degrees of freedom is 2.776


def test_rows_of_calls_and_processes_are_marked_with_their_own_error() -> None:
    pane, _, _ = shown()
    for names in (["read"], ["7", "worker"]):
        lines = [line_text(line) for line in pane.lines(78, 12)]
        head = next(line.split() for line in lines if "share" in line)
        cells = next(line.split() for line in lines if line.split()[: len(names)] == names)
        assert "±" in head
        assert cells[len(names) : len(names) + 3] == ["~16.0k", "7%", "~1.60k"]
        pane.enter()


def test_what_was_counted_has_no_mark() -> None:
    pane = SyscallPane()
    first, second = frame(1.0, syscalls=exact(100)), frame(2.0, syscalls=exact(300))
    pane.update(None, first)
    pane.update(first, second)
    assert "~" not in "".join([line_text(line) for line in pane.lines(78, 12)])


def test_between_bursts_the_last_estimate_stands() -> None:
    pane, _, second = shown()
    before = line_text(tuple(pane.headline()))
    # No burst has ended since: the Sample is as it was.
    later = frame(2.2, syscalls=second.samples["syscalls"])
    pane.update(second, later)
    assert line_text(tuple(pane.headline())) == before


def test_series_of_estimates_are_apart_from_those_of_counts() -> None:
    metrics = Metrics(read=nowhere)
    first = exact(100)
    metrics.add(frame(1, syscalls=first))
    metrics.add(frame(2, syscalls=sampled(first)))
    read = ("read",)
    assert series(metrics, "probetop_syscalls_total") == {read: 100}
    assert series(metrics, "probetop_syscalls_estimated_total") == {read: 16_000}
    assert series(metrics, "probetop_syscall_errors_total") == {("EAGAIN", "read"): 10}
    assert series(metrics, "probetop_syscall_errors_estimated_total") == {("EAGAIN", "read"): 1600}
    assert series(metrics, "probetop_syscalls_estimated_variance_total") == {(): 400**2}
    (counted,) = series(metrics, "probetop_process_syscalls_total").values()
    (estimated,) = series(metrics, "probetop_process_syscalls_estimated_total").values()
    assert (counted, estimated) == (100, 16_000)
    # Counts divided by these seconds are rates: a second of bursts is not among them.
    assert series(metrics, "probetop_probe_seconds_total") == {("syscalls",): 1.0}
    assert series(metrics, "probetop_probe_estimated_seconds_total") == {("syscalls",): 1.0}
    assert series(metrics, "probetop_probe_burst_seconds_total") == {("syscalls",): 0.0625}


def test_what_the_budget_detached_is_not_drawn_as_a_failure() -> None:
    why = Sample(state="failed", why="detached", fix="it is tried again", given_up="detached")
    assert failed_lines(why, 40)[0][0][1] == "warn"
    assert failed_lines(Sample(state="failed", why="no file"), 40)[0][0][1] == "error"


def test_executions_that_are_not_looked_for_are_not_known() -> None:
    def title(given_up: str | None) -> str:
        pane = ExecPane()
        first = frame(1.0, execs=ExecSample(state="on", execs=1, given_up=given_up))
        second = frame(2.0, execs=ExecSample(state="on", execs=3, given_up=given_up))
        pane.update(None, first)
        pane.update(first, second)
        return line_text(tuple(pane.headline()))

    assert "failed 0/s" in title(None)
    assert "failed -/s" in title("failing ones are not seen")


def test_the_series_of_failing_executions_has_gaps_where_nobody_looked() -> None:
    total = ExecSum()
    for given_up, known in ((None, True), ("failing ones are not seen", False)):
        tick = Tick(1.0)
        total.add(ExecSample(state="on"), ExecSample(state="on", given_up=given_up), tick)
        assert ("failed" in tick.counts) == known
        assert tick.counts["execs"] == 0


def test_calls_of_targets_that_are_all_given_up_are_not_known() -> None:
    def title(given_up: bool) -> tuple[str, list[str]]:
        pane = LatencyPane()
        target = Target(spec="f", state="failed", why="over 2 % CPU", given_up=given_up)
        second = frame(2.0, latency=LatencySample(state="on", targets={"f": target}))
        pane.update(frame(1.0, latency=second.samples["latency"]), second)
        return line_text(tuple(pane.headline())), [
            style for line in pane.lines(80, 12) for _, style in line
        ]

    text, styles = title(True)
    assert "- calls/s" in text
    assert "failed" not in text
    assert not {"bad", "error"} & set(styles)
    text, styles = title(False)
    assert "1 failed" in text
    assert "error" in styles
