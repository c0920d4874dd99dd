# SPDX-License-Identifier: Apache-2.0
"""Sums, summaries, pages and comparisons say what of their counts is estimated from bursts."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probes.budget.burst_sums import BurstSums
from probes.core.estimates import factor
from probes.core.frame import Frame, Host
from probes.core.sample import Counts, Duty, Estimates, Sample
from probes.execs.sample import ExecSample
from probes.ipc.messages import BurstReport
from probes.latency.sample import LatencySample, Target
from probes.recording.file import Writer
from probes.report.stream import dumps
from probes.report.summary import Summary, summarize
from probes.sums import accumulators
from probes.sums.counter_tables import Unusual
from probes.sums.summary_limits import LIMITS
from probes.syscalls.sample import SyscallSample
from probes.syscalls.sum import SyscallSum
from tests.unit.test_estimates_shown import SAMPLING, exact, sampled
from tui.commands import diff_input as runs
from tui.commands.comparison import compare
from tui.commands.diff import diff
from tui.export.html import losses, snapshot_page
from tui.export.syscalls import syscall_tables
from tui.export.tables import Table
from tui.registry import REGISTRY

KINDS = {entry.name: entry.probe_class() for entry in REGISTRY}
DETACHED = {"state": "failed", "why": "detached: over 2 % CPU (probe 15 %)", "fix": "it is tried"}


def frame(tick: float, **samples: Sample) -> Frame:
    return Frame(time=1.7e9 + tick, mono=tick, interval=1.0, host=Host("web-3"), samples=samples)


def partly() -> list[Frame]:
    """A second in which 100 reads were counted, one in which bursts stand for 16,000."""
    begin = replace(exact(0), calls={}, errnos={}, matrix={}, counted=0.0)
    return [
        frame(0, syscalls=begin),
        frame(1, syscalls=exact(100)),
        frame(2, syscalls=sampled(exact(100))),
    ]


def summed(frames: list[Frame]) -> Summary:
    summary: Summary = json.loads(dumps(summarize(frames, KINDS, LIMITS)))
    return summary


def cells(table: Table) -> dict[str, str]:
    """The first row, by the names of columns."""
    names = [column.name for column in table.columns]
    return dict(zip(names, [cell.text for cell in table.rows[0]], strict=True))


def test_a_summary_tells_what_was_counted_from_what_was_estimated() -> None:
    probe = summed(partly())["probes"]["syscalls"]
    assert probe["duty"] == {
        "on": 0.0625, "seconds": 1.0, "bursts": 5, "factor": factor(Duty(freedom=4)),
    }  # fmt: skip
    assert (probe["estimated"], probe["error"], probe["errors_error"]) == (16_000, 400, 100)
    for table in ("rows", "processes", "matrix"):
        (row,) = probe[table]
        assert row["count"] - row["estimated"] == 100
        assert (row["errors"], row["error"], row["errors_error"]) == (1_610, 400, 100)
    assert probe["seconds"] == 2.0


def test_what_was_counted_has_no_fields_of_estimates() -> None:
    text = json.dumps(summed(partly()[:2]))
    assert '"duty"' not in text
    assert '"estimated"' not in text
    assert '"error"' not in text


def test_series_have_the_estimated_part_beside_the_whole() -> None:
    series = summed(partly())["series"]["syscalls"]
    assert (series["calls"], series["estimated"]) == ([100, 16_000], [0, 16_000])


def test_rows_of_ended_processes_that_are_left_out_say_how_much_is_estimated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("probes.sums.accumulators.ROOM", 10)
    monkeypatch.setattr("probes.sums.retention.KEPT", 5)
    total = SyscallSum()
    total._room = 10
    last = SyscallSample(state="on", counted=0.0, duty=Duty())
    for tick in range(1, 41):
        part = Estimates(100 + tick, 1, 25, 1)
        whole = last.estimated_total
        now = SyscallSample(
            state="on",
            counted=0.0,
            duty=Duty(4 * tick, 0.1 * tick, 1.0 * tick, 0.0, 3 * tick),
            comms={tick: "short"},
            estimated={"read": Estimates(*[a + b for a, b in zip(whole, part, strict=True)])},
            estimated_matrix={(tick, "read"): part},
            estimated_processes={tick: part},
            estimated_total=Estimates(*[a + b for a, b in zip(whole, part, strict=True)]),
        )
        total.add(last, now, accumulators.Tick(1.0))
        last = now
    kept = total.sample()
    assert isinstance(kept, SyscallSample)
    assert len(kept.estimated_matrix) < 40
    assert kept.estimated_matrix.keys() == {(pid, "read") for pid in kept.estimated_processes}
    left = total.left["processes"]
    assert left["rows"] == 40 - len(kept.estimated_processes)
    shown = sum([part.n for part in kept.estimated_processes.values()])
    assert left["count"] == left["estimated"] == kept.estimated_total.n - shown


def test_pages_mark_estimates_and_say_in_words_what_they_are() -> None:
    summary = summed(partly())
    call, process, both = syscall_tables(summary["probes"]["syscalls"])
    for table in (call, process, both):
        row = cells(table)
        assert (row["calls"], row["calls/s"], row["errors"]) == ("~16.1k", "~8.05k", "~1.61k")
        assert row["±"] == "7%"
    words = (
        "System calls: for 1 s it was attached in bursts (5 of them, 0.0625 s in all),"
        " ~16.0k of the calls are estimates (± 7%)."
    )
    assert ("warn", words) in losses(summary)
    page = snapshot_page(summary, None)
    assert words in page
    assert "estimated from bursts" in page
    assert SAMPLING in page


def test_pages_of_what_was_counted_have_no_such_column() -> None:
    summary = summed(partly()[:2])
    (table, *_) = syscall_tables(summary["probes"]["syscalls"])
    assert "±" not in cells(table)
    assert "~" not in "".join(cells(table).values())
    assert "estimated from bursts" not in snapshot_page(summary, None)


def test_what_the_budget_detached_is_no_failure_on_a_page() -> None:
    held: Any = {**DETACHED, "given_up": "detached"}
    target = Target(spec="f", given_up=True, **DETACHED)  # type: ignore[arg-type]
    latency = LatencySample(state="on", targets={"f": target})
    summary = summed(
        [frame(tick, syscalls=SyscallSample(**held), latency=latency) for tick in (0, 1)]
    )
    said = losses(summary)
    assert not [words for style, words in said if style == "bad"]
    assert ("warn", f"System calls: {DETACHED['why']}; {DETACHED['fix']}.") in said
    page = snapshot_page(summary, None)
    assert 'wrap bad"' not in page
    assert "failed" not in page.split("<script type")[0].split("</style>")[-1]
    # Without the word of the budget it is one.
    failed = summed([frame(tick, syscalls=SyscallSample(**{**held, "given_up": None}))
                     for tick in (0, 1)])  # fmt: skip
    assert losses(failed)[0][0] == "bad"


def recorded(path: Path, frames: list[Frame]) -> str:
    with Writer(path) as writer:
        for one in frames:
            writer.write(one)
    return str(path)


def steady(rate: int, error: int, seconds: int = 10) -> list[Frame]:
    """Bursts stand for so many reads a second; `error` is the standard error of the sum."""
    out = []
    for tick in range(seconds + 1):
        part = Estimates(rate * tick, 0, error**2 * tick // seconds, 0)
        sample = SyscallSample(
            state="on",
            counted=0.0,
            duty=Duty(5 * tick, 0.06 * tick, 1.0 * tick, 0.0, 4 * tick),
            estimated={"read": part} if tick else {},
            estimated_total=part,
        )
        out.append(frame(tick, syscalls=sample))
    return out


def test_a_comparison_takes_the_errors_of_estimates_into_account(tmp_path: Path) -> None:
    before = recorded(tmp_path / "a.ptrec", steady(1_000, 100))
    sure = recorded(tmp_path / "b.ptrec", steady(1_500, 100))
    unsure = recorded(tmp_path / "c.ptrec", steady(1_500, 3_000))
    (change,) = compare(runs.load(before), runs.load(sure))
    assert (change.before.value, change.after.value) == (1_000, 1_500)
    assert compare(runs.load(before), runs.load(unsure)) == []


def test_a_comparison_marks_estimates_and_says_for_how_long(tmp_path: Path) -> None:
    before = recorded(tmp_path / "a.ptrec", steady(1_000, 100))
    after = recorded(tmp_path / "b.ptrec", steady(3_000, 100))
    out = io.StringIO()
    page = tmp_path / "d.html"
    diff(before, after, out, as_json=False, html=str(page), force=False)
    assert "~1.00k  ~3.00k  x3" in out.getvalue()
    assert "A measured system calls in bursts for 10 s" in out.getvalue()
    assert "~3.00k" in page.read_text()


def in_bursts(kind: str) -> Sample:
    """A Sample of which something is estimated."""
    duty = Duty(5, 0.06, 1.0, 0.0, 4)
    if kind == "syscalls":
        return SyscallSample(state="on", duty=duty, calls={"read": Counts(1, 0)})
    if kind == "execs":
        return ExecSample(state="on", failed_duty=duty)
    return LatencySample(state="on", targets={"f": Target(spec="f", state="on", duty=duty)})


@pytest.mark.parametrize("kind", ["syscalls", "execs", "latency"])
def test_recordings_with_estimates_are_added_up_frame_by_frame(tmp_path: Path, kind: str) -> None:
    frames = [frame(tick, **{kind: in_bursts(kind)}) for tick in range(3)]
    with pytest.raises(Unusual, match="estimates from bursts"):
        runs._totalled(recorded(tmp_path / "a.ptrec", frames))


def test_what_no_burst_saw_has_no_row() -> None:
    bursts = BurstSums("calls")
    for number in range(5):
        at = number * 200_000_000
        report = BurstReport(
            1, None, number + 1, "burst", at, at, at + 10_000_000, at + 200_000_000
        )
        bursts.add(report, {"calls": {"read": (number, 0)} if number else {}})
    bursts.close()
    assert bursts.tables["calls"].known.keys() == {"read"}
    assert bursts.duty is not None
    assert bursts.duty.bursts == 5
