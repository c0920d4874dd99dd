# SPDX-License-Identifier: Apache-2.0
"""What is exposed, before it is written in one format or another: families of series.

A family has a name (without `_total`), a kind, a help text and points, each with its label
values in the order of the family's label names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, cast

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from probes.core.safe_text import escaped
from tui.agent.metrics.histogram import Spread

Kind = Literal["counter", "gauge", "histogram"]
Value = float | Spread
OTHER = "other"
"""The label of what has no series of its own."""
LONGEST = 200
"""Most characters of a label's value."""

_bound = cast("Callable[[float], str]", floatToGoString)
_UNFIT = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Control characters, invisible ones, and those that change the direction of text."""


class Family(NamedTuple):
    """Series of one name; a counter's and a gauge's values are numbers, a histogram's Spreads."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    points: Sequence[tuple[tuple[str, ...], Value]]


def counter(
    name: str, text: str, labels: tuple[str, ...], points: Iterable[tuple[tuple[str, ...], Value]]
) -> Family:
    """A family of counters."""
    return Family(name, "counter", text, labels, list(points))


def gauge(
    name: str, text: str, labels: tuple[str, ...], points: Iterable[tuple[tuple[str, ...], Value]]
) -> Family:
    """A family of gauges."""
    return Family(name, "gauge", text, labels, list(points))


@lru_cache(8192)
def label(text: str | None, longest: int = LONGEST) -> str:
    """A label's value: what a process or user chose, as text that every reader takes.

    Bytes that are no UTF-8 are written as backslash escapes, so that names stay distinct; a
    control character, or what turns the direction of text round, is replaced. What is too long
    is cut and ends with an ellipsis. Unknown is empty.
    """
    if text is None:
        return ""
    text = _UNFIT.sub("\ufffd", escaped(text))
    return text if len(text) <= longest else text[: longest - 1] + "\u2026"


class Names:
    """Labels of at most `most` different texts; further ones are `other`.

    What came first stays: so a series never moves.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, str] = {}

    def of(self, text: str) -> str:
        """The label of a text."""
        known = self._known.get(text)
        if known is not None:
            return known
        if len(self._known) >= self._most:
            return OTHER
        self._known[text] = label(text)
        return self._known[text]


def as_metric(family: Family) -> Metric:
    """The family as prometheus_client has it, its histograms with classic buckets."""
    metric = Metric(family.name, family.help, family.kind)
    suffix = "_total" if family.kind == "counter" else ""
    for values, value in family.points:
        labels = dict(zip(family.labels, values, strict=True))
        if isinstance(value, Spread):
            metric.samples += _histogram(family.name, labels, value)
        else:
            metric.samples.append(Sample(family.name + suffix, labels, value))
    return metric


def _histogram(name: str, labels: dict[str, str], spread: Spread) -> list[Sample]:
    buckets = [
        Sample(f"{name}_bucket", {**labels, "le": _bound(bound)}, count)
        for bound, count in (*spread.classic(), (float("inf"), spread.count))
    ]
    return [
        *buckets,
        Sample(f"{name}_count", labels, spread.count),
        Sample(f"{name}_sum", labels, spread.sum),
    ]
