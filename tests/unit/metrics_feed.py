# SPDX-License-Identifier: Apache-2.0
"""What tests of the metrics stand on: Frames by hand, and readers of what was written.

The reader of protobuf knows nothing of the writer: only the wire format, and the field numbers
of metrics.proto of prometheus/client_model.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, cast

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from probes.core.frame import Frame, Host
from probes.core.sample import Sample
from tui.agent.metrics.collector import Metrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)
_parsed = cast("Callable[[str], Iterator[Metric]]", text_string_to_metric_families)
Key = tuple[str, frozenset[tuple[str, str]]]


def frame(mono: float, **samples: Sample) -> Frame:
    """A Frame of these Samples, by the probes' names."""
    return Frame(time=1.7e9 + mono, mono=mono, interval=1.0, host=Host("web-3"), samples=samples)


def nowhere(pid: int) -> str | None:
    """A control group that nobody knows."""
    return None


def values(metrics: Metrics) -> dict[Key, float]:
    """Every sample of the OpenMetrics text, as prometheus_client's own parser reads it."""
    body, content_type = metrics.render(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    found: dict[Key, float] = {}
    for family in _parsed(body.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def series(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """The values of one name, by the label values in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(labels)): number
        for (found, labels), number in values(metrics).items()
        if found == name
    }


def is_counter(key: Key) -> bool:
    """Whether a sample must never fall."""
    return key[0].endswith(("_total", "_bucket", "_count", "_sum"))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message: numbers, doubles, or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 1:
            value, at = struct.unpack_from("<d", data, at)[0], at + 8
        else:
            assert wire == 2
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
            assert len(value) == length
        yield number, value


def _signed(number: int) -> int:
    return number >> 1 if number % 2 == 0 else -(number + 1 >> 1)


def _packed(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        number, at = _varint(data, at)
        yield _signed(number)


def _histogram(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"classic": [], "native": {}}
    spans: list[tuple[int, int]] = []
    deltas: list[int] = []
    for number, value in fields(data):
        if number == 3:
            bucket = dict(fields(value))
            found["classic"].append((bucket[2], bucket.get(1, 0)))
        elif number == 12:
            span = dict(fields(value))
            spans.append((_signed(span.get(1, 0)), span[2]))
        elif number == 13:
            deltas += _packed(value)
        else:
            name = {1: "count", 2: "sum", 5: "schema", 6: "zero_threshold", 7: "zero"}[number]
            found[name] = _signed(value) if number == 5 else value
    at = count = 0
    rest = iter(deltas)
    for offset, length in spans:
        at += offset
        for _ in range(length):
            count += next(rest)
            found["native"][at] = count
            at += 1
    assert not list(rest)
    return found


def _metric(data: bytes) -> tuple[dict[str, str], Any]:
    labels: dict[str, str] = {}
    value: Any = None
    for number, inner in fields(data):
        if number == 1:
            pair = dict(fields(inner))
            labels[pair[1].decode()] = pair[2].decode()
        elif number == 7:
            value = _histogram(inner)
        else:
            assert number in (2, 3)
            value = dict(fields(inner))[1]
    return labels, value


def decoded(body: bytes) -> dict[str, tuple[int, list[tuple[dict[str, str], Any]]]]:
    """Every family of a protobuf body: its type's number, and its metrics."""
    found: dict[str, tuple[int, list[tuple[dict[str, str], Any]]]] = {}
    at = 0
    while at < len(body):
        length, at = _varint(body, at)
        name, kind = "", 0
        metrics = []
        for number, value in fields(body[at : at + length]):
            if number == 1:
                name = value.decode()
            elif number == 3:
                kind = value
            elif number == 4:
                metrics.append(_metric(value))
            else:
                assert number == 2
                assert value.decode()
        assert name not in found
        found[name] = kind, metrics
        at += length
    return found
