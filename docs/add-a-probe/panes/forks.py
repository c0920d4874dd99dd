# SPDX-License-Identifier: Apache-2.0
"""The pane of created threads: one row a CPU."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, cast

from probes.forks.sample import ForkSample

from probes.core.delta import int_delta, seconds_between
from probes.core.frame import Frame
from tui.panes.base import Pane
from tui.panes.table import Column, Table
from tui.shared.styled_lines import Line, Span
from tui.shared.text import fmt_count


class CpuRow(NamedTuple):
    """A CPU, and the threads that were created there, per second."""

    cpu: int
    rate: float


COLUMNS: tuple[Column[CpuRow], ...] = (
    Column("cpu", 5, lambda row: (str(row.cpu), "text"), lambda row: row.cpu),
    Column("created/s", 10, lambda row: (fmt_count(row.rate), "text"), lambda row: row.rate),
)


class ForkPane(Pane):
    """Threads created per second, by CPU, highest first."""

    name: ClassVar[str] = "forks"
    weight: ClassVar[int] = 3
    reading: ClassVar[str] = "Threads and processes created on each CPU, by whoever runs there."

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(COLUMNS, lambda row: row.cpu, lambda row: str(row.cpu), sort=1)

    def show(self, since: Frame | None, after: Frame, passed: float = 0.0) -> None:
        """Take in the difference of two Frames."""
        super().show(since, after, passed)
        sample, old = self.sample, None if since is None else since.samples.get(self.name)
        if not isinstance(sample, ForkSample) or sample.state != "on" or since is None:
            self.table.feed([])
            return
        known = isinstance(old, ForkSample) and old.generation == sample.generation
        before = cast(ForkSample, old).created if known else {}
        seconds = seconds_between(since, after)
        made = int_delta(before, sample.created)
        self.table.feed([CpuRow(cpu, count / seconds) for cpu, count in made.items()])

    def headline(self) -> list[Span]:
        """All of them, per second."""
        return [(f"{fmt_count(sum(row.rate for row in self.table.rows))}/s", "text")]

    def body(self, width: int, height: int, focused: bool) -> list[Line]:
        """The table."""
        return self.table.lines(width, height, self.theme, focused)

    def move(self, to: str) -> None:
        """Move the cursor."""
        self.table.move(to)

    def sort(self, reverse: bool = False) -> None:
        """Sort by the other column, or the other way round."""
        self.table.sort(reverse)

    def set_filter(self, text: str) -> None:
        """Show the CPUs whose number contains the text."""
        super().set_filter(text)
        self.table.set_filter(text)
