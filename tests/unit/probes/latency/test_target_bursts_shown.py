# SPDX-License-Identifier: Apache-2.0
"""Latency targets in bursts on the screen, in recordings, metrics and pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from probes.core.frame import Frame, Host
from probes.core.sample import NO_HISTOGRAM, Estimate, Histogram
from probes.latency.contract import latency_contract
from probes.latency.sample import LatencySample, Target
from tests.unit.metrics_feed import values
from tests.unit.probes.latency.test_target_bursts import sample, target
from tests.unit.probes.recording.test_recording import read, write
from tests.unit.tui.agent.test_metrics import fed
from tests.unit.tui.panes.test_tui_latency import Feed
from tui.export.latency import latency_tables

SPEC = "uprobe:a:f"
GIVEN_UP = "f sampling 1 s in 10: over 2 % CPU (probe 15 %)"
WHY = "attached in bursts of 100 ms: a call that takes longer is not seen"


def shown(feed: Feed) -> dict[str, str]:
    heading = feed.texts()[0].split()
    return dict(zip(heading, feed.row(" uprobe "), strict=True))


def test_the_pane_marks_what_is_estimated_and_how_far_off_it_may_be() -> None:
    feed = Feed()
    for times in (2, 6):
        feed(1, sample(times, why=WHY, functions=1))
    row = shown(feed)
    assert row["calls/s"] == "~100"
    assert row["±"].endswith("%")
    assert row["max"].startswith(">=")
    assert row["p50"] != "-"
    assert any("a call that takes longer is not seen" in text for text in feed.texts())


def test_the_last_estimate_stays_until_there_is_another_but_not_for_long() -> None:
    feed = Feed()
    for times in (2, 6):
        feed(1, sample(times))
    known = shown(feed)
    feed(3, sample(6))
    assert shown(feed) == known
    feed.pane.enter()
    assert any("~100" in text for text in feed.texts())
    feed.pane.back()
    feed(1, sample(8))
    assert shown(feed)["calls/s"] == "~100"
    feed(20, sample(8))
    assert feed.row(" uprobe ")[2] == "-"


def test_the_title_says_what_is_reduced_before_why() -> None:
    feed = Feed()
    feed(1, sample(2))
    feed(1, replace(sample(6), given_up=GIVEN_UP))
    assert "~100 calls/s  f sampling 1 s in 10  over 2 % CPU" in feed.headline()


def test_exact_rows_have_no_column_of_errors() -> None:
    feed = Feed()
    for n in (0, 10):
        exact = replace(
            sample(
                0,
                duty=None,
                estimated=Estimate(),
                in_bursts=NO_HISTOGRAM,
                histogram=Histogram({5: n}, n, 5 * n),
            ),
            counted=None,
        )
        feed(1, exact)
    assert "±" not in feed.texts()[0]
    assert shown(feed)["calls/s"] == "10"


def test_a_recording_has_all_of_it(tmp_path: Path) -> None:
    frames = [
        Frame(
            time=1e9 + n, mono=float(n), interval=1.0, host=Host(), samples={"latency": sample(n)}
        )
        for n in (0, 2, 6)
    ]
    found, _ = read(write(tmp_path / "r", frames))
    assert [frame.samples["latency"] for frame in found] == [sample(n) for n in (0, 2, 6)]


def test_metrics_of_estimates_are_apart() -> None:
    found = values(fed(*[sample(n) for n in (0, 2, 6)], name="latency"))
    by_name = {name: n for (name, _), n in found.items()}
    assert by_name["probetop_target_calls_estimated_total"] == 600
    assert by_name["probetop_target_calls_estimated_variance_total"] == 540
    assert "probetop_latency_seconds_count" not in by_name
    assert "probetop_target_events_total" not in by_name


def test_pages_mark_estimates() -> None:
    exact = Target(spec="g", state="on", mechanism="uprobe", histogram=Histogram({5: 9}, 9, 45))
    whole = LatencySample(state="on", targets={"g": exact, SPEC: target(6)})
    before = LatencySample(state="on", targets={SPEC: target(2)})
    targets = latency_contract(before, whole, 3.0)["targets"]
    probe = {"targets": [{**one, "others": None} for one in targets], "seconds": 3.0}
    first, _ = latency_tables(probe)
    names = [column.name for column in first.columns]
    rows = [dict(zip(names, [cell.text for cell in row], strict=True)) for row in first.rows]
    of = {row["target"]: row for row in rows}
    assert (of[SPEC]["calls"], of[SPEC]["calls/s"]) == ("~400", "~100")
    assert of[SPEC]["max"].startswith(">=")
    assert of[SPEC]["±"].endswith("%")
    assert (of["g"]["calls"], of["g"]["±"]) == ("9", "")
