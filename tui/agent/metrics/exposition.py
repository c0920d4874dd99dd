# SPDX-License-Identifier: Apache-2.0
"""Which format a scraper takes, and families written in it.

OpenMetrics and Prometheus's older text are written by prometheus_client, protobuf by
`tui.agent.metrics.protobuf`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tui.agent.metrics import protobuf
from tui.agent.metrics.families import Family, as_metric

PROTOBUF = "application/vnd.google.protobuf"
OPENMETRICS = "application/openmetrics-text"
PLAIN = "text/plain"
_MESSAGE = "io.prometheus.client.MetricFamily"
_LONGEST_ACCEPT = 4096


class Range(NamedTuple):
    """A part of an Accept header: a type, how much it is liked, and its parameters."""

    kind: str
    weight: float
    parameters: dict[str, str]


def accepted(header: str) -> list[Range]:
    """What an Accept header asks for; what makes no sense in it is left out."""
    found: list[Range] = []
    for part in header[:_LONGEST_ACCEPT].split(","):
        kind, *rest = [word.strip() for word in part.split(";")]
        pairs = [word.partition("=") for word in rest]
        parameters = {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
        try:
            weight = float(parameters.pop("q", "1"))
        except ValueError:
            continue
        if kind and 0 < weight <= 1:
            found.append(Range(kind.lower(), weight, parameters))
    return found


def _is_ours(wanted: Range) -> bool:
    """Whether there is a writer for it."""
    if wanted.kind == PROTOBUF:
        parameters = wanted.parameters
        return parameters.get("proto") == _MESSAGE and parameters.get("encoding") == "delimited"
    if wanted.kind == OPENMETRICS:
        return wanted.parameters.get("version", "1.0.0") in ("0.0.1", "1.0.0")
    return wanted.kind in (PLAIN, "text/*", "*/*")


def negotiated(header: str) -> str:
    """The format for an Accept header: PROTOBUF, OPENMETRICS, or PLAIN for all others."""
    ours = [wanted for wanted in accepted(header) if _is_ours(wanted)]
    best = max(ours, key=lambda wanted: wanted.weight, default=None)
    return best.kind if best is not None and best.kind in (PROTOBUF, OPENMETRICS) else PLAIN


class _Families(Collector):
    """Families as a collector of prometheus_client."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return map(as_metric, self._families)


def written(families: Sequence[Family], kind: str) -> tuple[bytes, str]:
    """The body in a format, and its content type."""
    if kind == PROTOBUF:
        return protobuf.encode(families), protobuf.CONTENT_TYPE
    version = "1.0.0" if kind == OPENMETRICS else "0.0.4"
    encoder, content_type = choose_encoder(f"{kind}; version={version}")
    return encoder(_Families(families)), content_type
