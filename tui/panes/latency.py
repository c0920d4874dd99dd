# SPDX-License-Identifier: Apache-2.0
"""The latency pane: targets, the durations of the selected target, and the processes behind it.

Its figures are those of `probes.latency.view.latency_view`, divided by the interval's length.
"""

from __future__ import annotations

from probes.core.delta import seconds_between
from probes.core.elapsed import counted_seconds
from probes.core.frame import Frame
from probes.latency.sample import LatencySample
from probes.latency.view import LatencyView, SpentRow, latency_view, target_spent
from tui.panes.base import Pane
from tui.panes.heatmap import Moment
from tui.panes.held import Held
from tui.panes.latency_drawings import PAIR, Drawings, side_by_side
from tui.panes.table import Column, Table
from tui.panes.targets import (
    BAR,
    Behind,
    Row,
    behind_columns,
    file_notes,
    instead,
    label,
    mechanism,
    partly_timed,
    rated,
    target_columns,
    why_lines,
)
from tui.shared.styled_lines import Line, Span
from tui.shared.text import fmt_count, fmt_ns, safe, shorten
from tui.shared.theme import bar

NEARLY = 0.01
"""The row of unlisted processes is omitted below this fraction of an interval's calls."""
LINGER = 10
"""Intervals that an idle process keeps its row, so that rows do not flicker."""
SIDE = 64
"""Columns from which drawings stand beside the table."""
DRAWN, NARROW = 14, 36
"""Lines and columns from which the pane has drawings."""
VIEWS = ("both", "histogram", "heatmap", "table")


class LatencyPane(Pane):
    """The latency of functions and other targets."""

    name = "latency"
    weight = 6
    finds = True

    def __init__(self) -> None:
        super().__init__()
        self.view: LatencyView | None = None
        self.drawings = Drawings()
        self.drilled: str | None = None
        self.unlisted = 0.0
        self.shows = VIEWS[0]
        self._removing: set[str] = set()
        self._quiet: dict[int | str, tuple[int, Behind]] = {}
        self._held = Held()
        self.table: Table[Row] = Table(
            target_columns([], ""),
            lambda row: row.spec,
            lambda row: f"{row.spec} {mechanism(row)}",
            empty="no targets: press f to find a function to time",
            instead=instead,
        )
        self.processes = self._process_table()

    def _behind_columns(self, by_text: bool | None = None) -> list[Column[Behind]]:
        """The columns for the processes or texts behind the selected target."""
        shape: Column[Behind] = Column("", BAR, self._bar, right=False, drop=2)
        row = self.selected() if by_text is None else None
        target = row.target if row is not None else None
        texts = target.target.by_text if target is not None else bool(by_text)
        estimated = target is not None and target.target.duty is not None
        return behind_columns(shape, texts, self.theme.glyphs.within if estimated else "")

    def _process_table(self, by_text: bool = False) -> Table[Behind]:
        return Table(
            self._behind_columns(by_text),
            lambda row: row.key,
            lambda row: f"{row.process.comm} {row.process.pid or ''}",
            sort=2 if by_text else 3,
            empty=f"no {'call' if by_text else 'process called it'} in this interval",
        )

    def _bar(self, row: Behind) -> Span:
        drawn = self.theme.drawings
        return (bar(row.share or 0.0, BAR, self.theme.glyphs), "bar") if drawn else ("", "")

    # -- what is shown ----------------------------------------------------------------

    def tick(self, before: Frame | None, after: Frame) -> None:
        """Add a column to the heatmap."""
        sample, was = self._samples(before, after)
        if sample is None or was is None:
            # Without an earlier Sample, the counts may cover more than one interval.
            self.drawings.heat.gap(after)
        else:
            spent = {spec: each.buckets for spec, each in target_spent(was, sample).items()}
            seconds = counted_seconds(was, sample, seconds_between(before, after))
            self.drawings.heat.add(Moment(after.time, seconds), spent, after)

    def show(self, since: Frame | None, after: Frame, passed: float = 0.0) -> None:
        """Compute the window's rates and percentiles."""
        super().show(since, after, passed)
        sample, was = self._samples(since, after)
        if sample is None:
            self.view = None
            return
        seconds = counted_seconds(was, sample, seconds_between(since, after))
        if was is not None:
            was = self._held.before(was, sample, after.mono)
        self.view = view = latency_view(was, sample, seconds)
        spent = {row.target.spec for row in view.targets}
        self._removing &= spent
        self.drawings.keep(spent)
        if self.drilled is not None and self.drilled not in spent:
            self.drilled = None
        self._feed(aged=passed > 0)

    def _samples(
        self, before: Frame | None, after: Frame
    ) -> tuple[LatencySample | None, LatencySample | None]:
        """The probe's Samples, the newer one first; None where the probe was off."""
        new = after.samples.get(self.name)
        old = before.samples.get(self.name) if before is not None else None
        return (
            new if isinstance(new, LatencySample) and new.state == "on" else None,
            old if isinstance(old, LatencySample) and old.state == "on" else None,
        )

    @property
    def seconds(self) -> float | None:
        """The window's length."""
        return None if self.view is None else self.view.seconds

    def reset(self) -> None:
        """Drop the heatmap, its axes and idle rows."""
        super().reset()
        self.drawings.clear()
        self._quiet.clear()
        self._held.clear()

    def _feed(self, aged: bool = False) -> None:
        view = self.view
        if view is None:
            return
        rows = [Row(t, t.seconds, t.target.spec in self._removing) for t in view.targets]
        self.table.set_columns(target_columns(rows, self.theme.glyphs.within))
        self.table.filter = "" if self.drilled else self.filter
        self.table.feed(rows)
        if self.drilled is not None:
            self.processes.set_columns(self._behind_columns())
            self.processes.filter = self.filter
            self.processes.feed(self._behind(view, self.drilled, aged))

    def _behind(self, view: LatencyView, spec: str, aged: bool) -> list[Behind]:
        found = view.behind(spec)
        target = next(row for row in view.targets if row.target.spec == spec)
        rest = view.unlisted(target)
        # Rows and histograms are read one after the other, so a few calls are in only one of them.
        least = 0.0 if view.seconds > 1.5 * self.interval else NEARLY * (target.count or 0)
        self.unlisted = rest / target.seconds if found and rest > least else 0.0
        timed = any(row.total for row in found)
        whole = sum([(row.total if timed else row.count) or 0 for row in found]) or 1
        values = any(row.is_value for row in self.table.rows if row.spec == spec)
        rows = [
            Behind(
                p,
                target.seconds,
                ((p.total if timed else p.count) or 0) / whole,
                values,
                target.duty,
            )
            for p in found
        ]
        active = {row.key for row in rows}
        for key, (age, row) in list(self._quiet.items()):
            if key in active:
                continue
            if aged and age + 1 > LINGER:
                del self._quiet[key]
                continue
            self._quiet[key] = (age + aged, row)
            rows.append(row)
        for row in rows[: len(active)]:
            total = None if row.process.total is None else 0
            none = SpentRow(row.process.number, row.process.comm, 0, total)
            self._quiet[row.key] = (0, Behind(none, view.seconds, 0.0, values))
        return rows

    def crumbs(self) -> list[str]:
        """The target that is drilled into."""
        return [] if self.drilled is None else [shorten(safe(label(self.drilled)), 40, "...")]

    def headline(self) -> list[Span]:
        """Targets and calls per second, and notes on incomplete figures."""
        view = self.view
        if view is None:
            return []
        failed = [row.target for row in view.targets if row.target.state == "failed"]
        broken = len([target for target in failed if not target.given_up])
        given_up, many = len([target for target in failed if target.given_up]), len(view.targets)
        out: list[Span] = [
            (str(many), "value"),
            (" target  " if many == 1 else " targets  ", "dim"),
            rated(None if many and given_up == many else view.rate, self._estimated),
            (" calls/s", "dim"),
        ]
        if broken:
            out.append((f"  {broken} failed", "bad"))
        for state in ("replaced", "deleted"):
            files = len([1 for row in view.targets if row.target.file == state])
            if files:
                out.append((f"  {files} file{'s' if files > 1 else ''} {state}", "warn"))
        if self.drilled is not None and self.unlisted:
            out.append((f"  not listed {fmt_count(self.unlisted)}/s", "warn"))
        if self.sample is not None and self.sample.given_up is not None:
            # A long title loses its last figures, so the reductions come before their reason.
            out += [(f"  {words}", "warn") for words in safe(self.sample.given_up).split(": ")]
        for word, count in (
            ("missed", sum([row.missed / row.seconds for row in view.targets])),
            ("overflow", sum([row.overflow / row.seconds for row in view.targets])),
        ):
            if count:
                out.append((f"  {word} {fmt_count(count)}/s", "warn"))
        return out

    @property
    def _estimated(self) -> bool:
        """True if any number of calls is an estimate."""
        return self.view is not None and any(row.estimated for row in self.view.targets)

    def body(self, width: int, height: int, focused: bool) -> list[Line]:
        """The table, with the selected target's durations beside or below it."""
        view, row = self.view, self.selected()
        if view is None:
            return []
        notes = self._notes(row, height)
        drawn = self.theme.drawings and self.shows != "table"
        if row is None or not drawn or height < DRAWN or width < NARROW:
            if focused and row is not None:
                notes = why_lines(row, width)[: height // 3] or notes
            return self._table(width, height, notes, focused)
        rows = max(len(self.table.rows), len(self.processes.rows) if self.drilled else 0, 1)
        upper = max(6, height * 2 // 5)
        beside = min(self.table.needs(), max(PAIR, width - SIDE - 1))
        # A table that fits completely above the drawings leaves more columns for them.
        if width - beside > SIDE and 1 + rows + len(notes) > upper:
            left = self._table(beside, height, notes, focused)
            right = self.drawings.lines(row, self.shows, (width - beside - 1, height), self.theme)
            return side_by_side(left, right, beside, height, self.theme)
        upper = min(1 + rows + len(notes), upper)
        lines = self._table(width, upper, notes, focused)
        lines += [()] * (upper - len(lines))
        return lines + self.drawings.lines(row, self.shows, (width, height - upper), self.theme)

    def selected(self) -> Row | None:
        """The target to draw: the one that is drilled into, else the one under the cursor."""
        if self.drilled is None:
            return self.table.current()
        return next((row for row in self.table.rows if row.spec == self.drilled), None)

    def _table(self, width: int, height: int, notes: list[Line], focused: bool) -> list[Line]:
        table = self.processes if self.drilled is not None else self.table
        return table.lines(width, height - len(notes), self.theme, focused) + notes

    def _notes(self, row: Row | None, height: int) -> list[Line]:
        """Explanations of the marks, and the probe's own messages."""
        notes = file_notes(row, self.source is not None and self.source.live)
        notes += partly_timed(row)
        if row is not None and row.is_value:
            notes.append(((" values, not durations: time/s is their sum per second", "dim"),))
        near = [row] if row is not None and row.is_near else []
        if self.drilled is None:
            near += [other for other in self.table.rows if other.is_near]
        if near:
            floor = near[0].target.target.floor
            notes.append(((f" ~ near the probe's own floor of {fmt_ns(floor)}", "dim"),))
        if self.sample is not None:
            notes += [((" " + note, "dim"),) for note in self.sample.notes]
        return notes[: height // 7]

    # -- what keys do -------------------------------------------------------------------

    def move(self, to: str) -> None:
        """Move the cursor."""
        (self.processes if self.drilled is not None else self.table).move(to)

    @property
    def drills(self) -> bool:
        """True for a target; a process has no further level."""
        return super().drills and self.drilled is None

    def enter(self) -> bool:
        """Drill down from a target to the processes behind it."""
        row = self.table.current()
        if self.drilled is not None or row is None or row.target.target.state != "on":
            return False
        self.drilled = row.spec
        self.processes = self._process_table(row.target.target.by_text)
        self._quiet.clear()
        self._feed()
        return True

    def back(self) -> bool:
        """Return to the targets."""
        if self.drilled is None:
            return False
        self.table.selected = self.drilled
        self.drilled = None
        self._feed()
        return True

    def select(self, row: str) -> None:
        """Move the cursor to the target with this spec as soon as it exists."""
        self.drilled = None
        self.table.selected = row

    def sort(self, reverse: bool = False) -> None:
        """Sort by the next column, or reverse the order."""
        if self.drilled is not None:
            self.processes.sort(reverse)
        else:
            self.table.sort(reverse)

    def set_filter(self, text: str) -> None:
        """Filter the shown table: targets by spec and mechanism, processes by name and pid."""
        super().set_filter(text)
        self._feed()

    def selected_pid(self) -> int | None:
        """The process id under the cursor."""
        behind = self.processes.current() if self.drilled is not None else None
        return None if behind is None else behind.process.pid

    def hints(self) -> list[tuple[str, str]]:
        """The keys a, d and v."""
        remove = [("d", "remove")] if self.drilled is None and self.table.rows else []
        follow = [("a", "follow file")] if self._can_follow() else []
        return [*follow, *remove, ("v", "view")]

    def options(self) -> list[tuple[str, str]]:
        """Palette entries for a (if it applies), d and v."""
        follow = ("a", "Latency: follow the file that replaced the selected target's")
        return [
            *([follow] if self._can_follow() else []),
            ("d", "Latency: remove the selected target (delete does the same)"),
            ("v", "Latency: histogram and heatmap, one of them, or the table alone"),
        ]

    def press(self, key: str) -> bool:
        """d, delete and backspace remove the selected target; a follows its file; v changes the
        view."""
        if key in ("d", "delete", "backspace"):
            return self._remove()
        if key == "a":
            return self._follow()
        if key == "v":
            self.shows = VIEWS[(VIEWS.index(self.shows) + 1) % len(VIEWS)]
            return True
        return False

    def _can_follow(self) -> bool:
        row = self.selected()
        return row is not None and row.target.target.file == "replaced"

    def _follow(self) -> bool:
        """Attach the selected target to the file that its path names now."""
        row = self.selected()
        if row is None or self.source is None or not self._can_follow():
            return False
        self.source.set_option(self.name, "follow", row.spec)
        return True

    def _remove(self) -> bool:
        row = self.table.current()
        if self.drilled is not None or row is None or self.source is None:
            return False
        self.source.set_option(self.name, "remove", row.spec)
        self._removing.add(row.spec)
        self._feed()
        return True
