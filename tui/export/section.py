# SPDX-License-Identifier: Apache-2.0
"""Parts of a page: words, graphs and tables, before they are HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tui.export.graphs import Bars, Chart, Heat
from tui.export.tables import Table
from tui.shared.text import UNKNOWN


@dataclass(slots=True)
class TargetGraphs:
    """The graphs of one latency target."""

    spec: str
    charts: list[Chart]
    bars: Bars | None
    heat: Heat | None


@dataclass(slots=True)
class Section:
    """A part of the page."""

    id: str
    title: str
    words: list[str] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    targets: list[TargetGraphs] = field(default_factory=list)


def digits(pattern: str) -> Callable[[float | None], str]:
    return lambda value: UNKNOWN if value is None else pattern.format(value)


def charts(*charts: Chart | None) -> list[Chart]:
    return [chart for chart in charts if chart is not None]
