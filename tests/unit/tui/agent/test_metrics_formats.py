# SPDX-License-Identifier: Apache-2.0
"""What a scraper gets: the format that it asked for, and nothing in it that breaks a reader."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from probes.core import histogram
from probes.core.sample import Histogram
from probes.latency.sample import LatencySample, Target
from probes.syscalls.sample import SyscallSample
from tests.unit.hostile import hostile_frames
from tests.unit.metrics_feed import OPENMETRICS, PROTOBUF, decoded, frame, nowhere, values
from tui.agent.metrics.collector import Metrics
from tui.agent.metrics.exposition import OPENMETRICS as OPEN
from tui.agent.metrics.exposition import PLAIN, negotiated
from tui.agent.metrics.exposition import PROTOBUF as PROTO
from tui.agent.metrics.families import LONGEST, _bound, label
from tui.agent.metrics.histogram import ZERO_THRESHOLD

NATIVE_SCRAPER = (
    PROTOBUF + ",application/openmetrics-text;version=1.0.0;q=0.8,"
    "application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
"""What Prometheus asks for where native histograms are on."""


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/html", PLAIN),
        ("text/plain;version=0.0.4", PLAIN),
        (OPENMETRICS, OPEN),
        ("application/openmetrics-text", OPEN),
        ("application/openmetrics-text;version=9.9", PLAIN),
        ("text/plain;q=0.5, application/openmetrics-text;version=1.0.0;q=0.9", OPEN),
        ("text/plain;q=0.9, application/openmetrics-text;version=1.0.0;q=0.5", PLAIN),
        (NATIVE_SCRAPER, PROTO),
        (NATIVE_SCRAPER.split(",", 1)[1], OPEN),
        (f"{PROTOBUF};q=0", PLAIN),
        (f"{PROTOBUF};q=much", PLAIN),
        ("application/vnd.google.protobuf", PLAIN),
        ("application/vnd.google.protobuf;proto=other.Message;encoding=delimited", PLAIN),
        (PROTOBUF.replace("delimited", "text"), PLAIN),
        (PROTOBUF.replace("=", ' = "').replace(";", '" ; ').replace("delimited", 'delimited"'),
         PLAIN),
        (";;,,;q=,=;q", PLAIN),
    ],
)  # fmt: skip
def test_format_is_the_one_that_is_asked_for(accept: str, kind: str) -> None:
    assert negotiated(accept) == kind


@given(st.text() | st.text("/;,=q.019 *-abcdefopqrstuvwxyz"))
def test_any_accept_header_has_an_answer(accept: str) -> None:
    body, content_type = Metrics(read=nowhere).render(accept)
    assert body
    assert content_type.partition(";")[0] in (PLAIN, OPEN, PROTO)
    assert content_type.isascii()
    assert content_type.isprintable()


def test_hostile_names_are_read_back_by_both_parsers() -> None:
    metrics = Metrics(read=lambda pid: '/evil\n"\\\udcff{}#' + "x" * 999)
    for one in hostile_frames():
        metrics.add(one)
    found = values(metrics)
    labels = {value for _, pairs in found for _, value in pairs}
    assert all(len(value) <= LONGEST for value in labels)
    assert not any(c < " " or "\x7f" <= c <= "\x9f" for value in labels for c in value)
    assert any(value.startswith('/evil\ufffd"\\\\xff{}#x') for value in labels)
    assert "\ufffd]0;owned\ufffd\ufffd\ufffd\ufffd" in labels
    body, content_type = metrics.render("")
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    old = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    changing = {key for key in found if key[0].startswith("process_")}
    assert {key: found[key] for key in found.keys() - changing} == {
        key: old[key] for key in old.keys() - changing
    }


@given(st.text(st.characters(codec=None), max_size=300))
def test_labels_are_text_of_a_bounded_length(text: str) -> None:
    made = label(text)
    assert len(made.encode()) <= 4 * LONGEST
    assert label(made) == made
    assert min(len(text), LONGEST) <= len(made) <= LONGEST


def test_names_that_are_no_utf8_stay_distinct() -> None:
    names = [os.fsdecode(raw) for raw in (b"/a\xff", b"/a\xfe")]
    assert [label(name) for name in names] == ["/a\\xff", "/a\\xfe"]


@pytest.mark.parametrize(
    "char", [*"\x1b\x7f\xad\u061c\u200b\u200e\u200f\u202e\u2060\u206f\ufeff\ufffb\U000e0041"]
)
def test_what_is_invisible_in_a_label_is_replaced(char: str) -> None:
    assert label(f"a{char}b") == "a\ufffdb"


def test_arguments_are_in_no_format() -> None:
    metrics = Metrics(read=nowhere)
    for one in hostile_frames():
        metrics.add(one)
    secrets = (b"uptime; free -m", b"daemon off;", b"*.log", b"+7")
    for accept in ("", OPENMETRICS, PROTOBUF):
        body, _ = metrics.render(accept)
        assert not [secret for secret in secrets if secret in body]


def test_protobuf_says_the_same_as_the_text() -> None:
    metrics = Metrics(read=nowhere)
    for one in hostile_frames():
        metrics.add(one)
    sizes = Histogram(
        {0: 1, histogram.index(4096): 7, histogram.index(2**40): 2}, 10, 7 * 4096 + 2**41
    )
    sized = Target(spec="f@size", mechanism="kprobe", state="on", unit="", histogram=sizes)
    metrics.add(frame(99, latency=LatencySample(state="on", targets={"f@size": sized})))
    text = values(metrics)
    body, content_type = metrics.render(NATIVE_SCRAPER)
    assert content_type == (
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily;"
        " encoding=delimited"
    )
    kinds = set()
    count = 0
    for name, (kind, found) in decoded(body).items():
        kinds.add(kind)
        for pairs, value in found:
            count += 1
            key = frozenset(pairs.items())
            if kind == 4:
                assert value["count"] == text[f"{name}_count", key]
                assert value["sum"] == text[f"{name}_sum", key]
                assert sum(value["native"].values()) + value["zero"] == value["count"]
                for bound, n in value["classic"]:
                    assert text[f"{name}_bucket", key | {("le", _bound(bound))}] == n
            elif not name.startswith("process_"):
                assert value == text[name, key]
    assert kinds == {0, 1, 4}
    assert count == sum(len(family.points) for family in metrics.collect())


def test_who_asks_often_gets_the_same_until_the_next_frame() -> None:
    metrics = Metrics(read=nowhere)
    first = [metrics.render(accept) for accept in ("", OPENMETRICS, PROTOBUF)]
    assert [metrics.render(accept) for accept in ("*/*", OPENMETRICS, NATIVE_SCRAPER)] == first
    assert metrics.render("")[0] is first[0][0]
    metrics.add(frame(1, syscalls=SyscallSample(state="on")))
    assert b'probetop_probe_up{probe="syscalls"} 1.0' in metrics.render("")[0]


def test_a_native_histogram_on_the_wire() -> None:
    """One duration of zero, three of about 1 ms and one of about 1 s."""
    buckets = {0: 1, histogram.index(1_000_000): 3, histogram.index(1_000_000_000): 1}
    target = Target(
        spec="f", mechanism="fentry", state="on", histogram=Histogram(buckets, 5, 1_003_000_000)
    )
    metrics = Metrics(read=nowhere)
    metrics.add(frame(1, latency=LatencySample(state="on", targets={"f": target})))
    kind, [(labels, value)] = decoded(metrics.render(PROTOBUF)[0])["probetop_latency_seconds"]
    assert (kind, labels) == (4, {"target": "f", "mechanism": "fentry"})
    assert (value["schema"], value["zero"], value["zero_threshold"]) == (3, 1, ZERO_THRESHOLD)
    assert (value["count"], value["sum"]) == (5, 1.003)
    # 2 ** (-79 / 8) is 1.066 ms, 2 ** (1 / 8) is 1.09 s.
    assert value["native"] == {-79: 3, 1: 1}


def test_nothing_was_read_yet() -> None:
    metrics = Metrics(read=nowhere)
    metrics.add(frame(1, syscalls=SyscallSample(state="failed", why="no", fix="yes")))
    names = {name for name, _ in values(metrics)}
    assert "probetop_probe_failed" in names
    # Unknown is absent.
    assert not names & {"probetop_probe_cost_ratio", "probetop_syscalls_total"}
