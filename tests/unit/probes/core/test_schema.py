# SPDX-License-Identifier: Apache-2.0
"""Tables that a probe declares are streamed, added up, shown and compared without code of it."""

from __future__ import annotations

import ast
import inspect
import json
import os
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from msgspec import convert
from prometheus_client.parser import text_string_to_metric_families

from probes.core import histogram, schema, tables
from probes.core.estimates import student
from probes.core.frame import Frame, Host
from probes.core.sample import Duty, Estimate, Histogram, Sample
from probes.core.schema import ComparedRows, Rate, Schema
from probes.recording import state_size, timeline
from probes.recording.file import Reader, Writer
from probes.recording.state_size import entries
from probes.report import recording_totals, stream, windows
from probes.report import summary as summary_module
from probes.report import timeseries as series
from probes.report.stream import dumps, stream_object
from probes.report.summary import Summary, summarize
from probes.sums import accumulators, summary_limits, table_sum
from tests.unit.toy import ENTRY, Sent, ToyProbe, ToySample
from tui import registry
from tui.agent.metrics import collector as metrics
from tui.agent.metrics import table_counters
from tui.commands import comparison, figures
from tui.commands import diff as diff_module
from tui.commands import diff_input as runs
from tui.commands.comparison import compare
from tui.commands.figures import Key, figures_of, probe_type
from tui.export import declared, html
from tui.export import write as export

pytestmark = pytest.mark.usefixtures("_registered")
KINDS = {"toys": ToyProbe}


ONCE = (
    schema, series, state_size, stream, accumulators, summary_module, summary_limits, table_sum,
    tables, timeline, recording_totals, windows, runs, figures, comparison, diff_module, html,
    declared, metrics, table_counters,
)  # fmt: skip
"""What is written once for all probes."""


@pytest.mark.parametrize("module", ONCE, ids=lambda module: module.__name__)
def test_what_is_written_once_names_no_probe(module: ModuleType) -> None:
    """Neither as a text nor by an import; texts that people read are no names."""
    tree = ast.parse(inspect.getsource(module))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *[alias.name for alias in node.names]]
    }
    own = {entry.sample_path.partition(":")[2] for entry in registry.REGISTRY}
    own |= {entry.probe_path.partition(":")[0] for entry in registry.REGISTRY}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not {entry.name for entry in registry.REGISTRY} & texts
    assert not own & (imported | used)


def spent(*durations: int) -> Histogram:
    buckets: dict[int, int] = {}
    for duration in durations:
        at = histogram.index(duration)
        buckets[at] = buckets.get(at, 0) + 1
    return Histogram(buckets, len(durations), sum(durations))


def frame(tick: float, **fields: Any) -> Frame:
    sample = ToySample(**{"state": "on", "counted": tick, **fields})
    return Frame(
        time=1.7e9 + tick, mono=tick, interval=1.0, host=Host("web-3"), samples={"toys": sample}
    )


FRAMES = (
    frame(
        10.0,
        sent={(7, "db"): Sent(100, 5000, 3), (8, "db"): Sent(10, 10, 0)},
        comms={7: "web", 8: "cron"},
        made={0: 5},
        spent={"open": spent(1000, 1000)},
    ),
    frame(
        12.0,
        sent={
            (7, "db"): Sent(300, 9000, 1),
            (8, "db"): Sent(10, 10, 2),
            (7, "cache"): Sent(4, 0, 0),
        },
        comms={7: "web", 8: "cron"},
        made={0: 25, 1: 2},
        spent={"open": spent(1000, 1000, 2000, 64_000)},
    ),
)  # fmt: skip


def streamed(before: Frame | None, after: Frame) -> dict[str, Any]:
    found: dict[str, Any] = stream_object(before, after, KINDS)["probes"]["toys"]
    return found


def test_rows_are_of_the_interval() -> None:
    probe = streamed(*FRAMES)
    assert probe["peers"] == [
        {"pid": 7, "comm": "web", "peer": "db", "messages": 200, "size": 4000, "waiting": 1},
        {"pid": 7, "comm": "web", "peer": "cache", "messages": 4, "size": 0, "waiting": 0},
        {"pid": 8, "comm": "cron", "peer": "db", "messages": 0, "size": 0, "waiting": 2},
    ]
    assert probe["cpus"] == [{"cpu": 0, "made": 20}, {"cpu": 1, "made": 2}]
    (call,) = probe["calls"]
    assert (call["call"], call["calls"], call["total"]) == ("open", 2, 66_000)
    assert 1900 < call["p50"] < 2100
    assert 63_000 < call["max"] < 67_000


def test_a_counter_that_fell_and_another_generation_count_from_zero() -> None:
    fallen = frame(14.0, sent={(7, "db"): Sent(3, 9100, 0)}, comms={7: "web"})
    assert [row["messages"] for row in streamed(FRAMES[1], fallen)["peers"]] == [3]
    again = frame(14.0, made={0: 30}, generation=1)
    assert streamed(FRAMES[1], again)["cpus"] == [{"cpu": 0, "made": 30}]
    assert streamed(None, FRAMES[0])["cpus"] == [{"cpu": 0, "made": 5}]


def test_buckets_of_its_histograms_count_as_entries() -> None:
    """A Frame may have only so many: else changes after changes would make it grow for ever."""
    some = ToySample(spent={"open": spent(1000, 2000, 64_000)})
    assert entries(some) - entries(ToySample()) == 1 + 3


def test_what_is_off_has_no_rows() -> None:
    off = frame(14.0, state="off")
    assert streamed(FRAMES[1], off)["peers"] is None


def in_bursts(tick: float, n: int) -> Frame:
    """As much more is estimated as was counted, from 16 bursts."""
    duty = Duty(bursts=16, on=0.5, seconds=4.0, freedom=15)
    estimated = {0: Estimate(n, 100)}
    return frame(tick, counted=tick - 4.0, made={0: n}, duty=duty, estimated_made=estimated)


def test_an_estimated_part_is_added_and_has_its_error() -> None:
    (row,) = streamed(frame(10.0), in_bursts(14.0, 50))["cpus"]
    assert row == {"cpu": 0, "made": 100, "estimated": 50, "error": 10.0}


def test_the_sum_of_intervals_is_the_difference_of_the_ends() -> None:
    """Whatever the numbers; and gauges are the last ones."""
    chance = random.Random(7)
    made = [0] * 4
    frames = []
    for tick in range(60):
        made = [n + chance.choice((0, 0, 1, 90)) for n in made]
        sent = {(pid, "db"): Sent(n, 2 * n, chance.randrange(9)) for pid, n in enumerate(made)}
        frames.append(frame(10.0 + tick, made=dict(enumerate(made)), sent=sent))
    summary = summarize(frames, KINDS)
    whole, probe = streamed(frames[0], frames[-1]), summary["probes"]["toys"]
    assert probe["cpus"] == whole["cpus"]
    counted = {row["pid"]: row["messages"] for row in whole["peers"]}
    assert {row["pid"]: row["messages"] for row in probe["peers"]} == counted
    assert (
        probe["peers"][0]["waiting"]
        == frames[-1]
        .samples["toys"]
        .sent[  # type: ignore[attr-defined]
            probe["peers"][0]["pid"], "db"
        ]
        .waiting
    )
    rates = summary["series"]["toys"]
    assert sum(rates["made"]) == pytest.approx(sum(row["made"] for row in whole["cpus"]), rel=1e-3)


def test_a_recording_holds_it(tmp_path: Path) -> None:
    path = str(tmp_path / "toys.ptrec")
    write(path, FRAMES)
    assert list(Reader(path)) == list(FRAMES)


def write(path: str, frames: Any) -> None:
    writer = Writer(path)
    for one in frames:
        writer.write(one)
    writer.close()


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    known = (*registry.REGISTRY, ENTRY)
    for module in (runs, html, declared, metrics, export):
        monkeypatch.setattr(module, "REGISTRY", known)


def test_a_summary_has_the_first_rows_and_tells_of_the_others() -> None:
    sent = {(pid, "db"): Sent(pid, 10, None) for pid in range(1, 301)}
    summary = summarize([frame(10.0), frame(11.0, sent=sent)], KINDS)
    probe = summary["probes"]["toys"]
    assert [row["pid"] for row in probe["peers"]] == list(range(300, 100, -1))
    assert probe["others"]["peers"] == {
        "rows": 100, "messages": sum(range(1, 101)), "size": 1000,
    }  # fmt: skip


def test_a_page_has_its_tables_and_rates() -> None:
    sections = html.snapshot_sections(snapshot([*FRAMES, frame(14.0)]))
    section = next(section for section in sections if section.id == "toys")
    assert [table.title for table in section.tables] == ["By process and peer", "By CPU", "By call"]
    peers, cpus, calls = section.tables
    assert [column.name for column in peers.columns] == [
        "pid", "process", "peer", "messages", "messages/s", "size", "size/s", "waiting",
    ]  # fmt: skip
    assert [cell.text for cell in cpus.rows[0]] == ["0", "20", "5.0"]
    assert [column.name for column in calls.columns][-4:] == ["p50", "p99", "max", "total"]
    assert [chart.title for chart in section.charts] == [
        "messages a second", "size a second", "made a second", "calls a second",
    ]  # fmt: skip


def snapshot(frames: Any) -> Summary:
    summary: Summary = json.loads(dumps(summarize(frames, KINDS)))
    return summary


def test_runs_are_compared(tmp_path: Path) -> None:
    """From a recording and from a snapshot alike."""
    a, b, c = (str(tmp_path / name) for name in ("a.ptrec", "b.ptrec", "c.json"))
    write(a, FRAMES)
    fewer = [FRAMES[0], frame(12.0, sent=FRAMES[0].samples["toys"].sent, made={0: 8})]  # type: ignore[attr-defined]
    write(b, fewer)
    Path(c).write_text(dumps(summarize(fewer, KINDS)), "utf-8")
    changes = {change.key: change.word() for change in compare(runs.load(a), runs.load(b))}
    assert changes[Key("peer", "db", "messages/s")] == "gone"
    assert changes == {change.key: change.word() for change in compare(runs.load(a), runs.load(c))}


def test_estimates_are_compared_by_their_errors(tmp_path: Path) -> None:
    path = str(tmp_path / "a.ptrec")
    write(path, [frame(10.0), in_bursts(14.0, 50)])
    run = runs.load(path)
    figure = run.figures[Key("cpu", "0", "made/s")]
    assert (figure.value, figure.events) == (25.0, 100.0)
    assert figure.error == pytest.approx(10.0 * student(15) / student(1000))
    assert run.estimated == {"toys": 4.0}


def exposed(*frames: Frame) -> dict[tuple[str, tuple[str, ...]], float]:
    all_of_it = metrics.Metrics(read=lambda pid: None)
    for one in frames:
        all_of_it.add(one)
    text, _ = all_of_it.render("text/plain")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name.startswith("probetop_toys")
    }


def test_the_agent_exposes_it_without_processes() -> None:
    found = exposed(*FRAMES)
    assert found["probetop_toys_messages_total", ("db",)] == 310
    assert found["probetop_toys_messages_total", ("cache",)] == 4
    assert found["probetop_toys_size_bytes_total", ("db",)] == 9010
    assert found["probetop_toys_waiting", ("db",)] == 3
    assert found["probetop_toys_made_total", ("0",)] == 25
    assert found["probetop_toys_calls_seconds_count", ("open",)] == 4
    assert not any(str(os.getpid()) in labels or "7" in labels for _, labels in found)


def test_counters_only_rise_and_estimates_have_their_own() -> None:
    again: Sample = ToySample(state="on", generation=1, made={0: 1})
    restarted = Frame(time=1.7e9, mono=20.0, interval=1.0, host=Host(), samples={"toys": again})
    assert exposed(*FRAMES, restarted)["probetop_toys_made_total", ("0",)] == 26
    found = exposed(frame(10.0), in_bursts(14.0, 50))
    assert found["probetop_toys_made_total", ("0",)] == 50
    assert found["probetop_toys_made_estimated_total", ("0",)] == 50


def test_labels_are_bounded() -> None:
    sent = {(1, f"peer-{n}"): Sent(1, 1, None) for n in range(5000)}
    found = exposed(frame(10.0), frame(11.0, sent=sent))
    series = {labels: n for (name, labels), n in found.items() if name.endswith("messages_total")}
    assert len(series) <= 1025
    assert sum(series.values()) == 5000


def test_a_row_may_have_an_error_for_each_of_its_numbers() -> None:
    """A scaled rate has a scaled error; what is not in the mapping was counted."""
    columns = (
        Rate(quantity="%", field="clock", error="error", scale=1e7, percent=True),
        Rate(quantity="moves/s", field="moves", error="error"),
        Rate(quantity="waits/s", field="waits", error="error"),
    )
    rows = ComparedRows(table="rows", what="thing", item="name", duty="duty", figures=columns)
    made = Schema(figures=(rows,))
    row = {
        "name": "a", "clock": 5e7, "moves": 4, "waits": 6, "error": {"clock": 1e7, "waits": None},
    }  # fmt: skip
    duty = {"seconds": 1.0, "factor": student(1000)}
    probe = convert({"seconds": 1.0, "duty": duty, "rows": [row]}, probe_type("things", made))
    found = {key.quantity: figure for key, figure in figures_of(probe, made).items()}
    assert found["%"] == pytest.approx((5.0, 5.0, 1.0))
    assert found["moves/s"] == (4.0, 4.0, 0.0)
    assert found["waits/s"] == pytest.approx((6.0, 6.0, 6.0))
