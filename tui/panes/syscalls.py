# SPDX-License-Identifier: Apache-2.0
"""The system-call pane: by call, by process, and from either into the other.

Its figures are those of `probes.syscalls.view.syscall_view`, divided by the interval's length.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from probes.core.delta import seconds_between
from probes.core.elapsed import SHORTEST, counted_seconds
from probes.core.estimates import factor
from probes.core.frame import Frame
from probes.syscalls.sample import SyscallSample
from probes.syscalls.view import CallRow, ProcessRow, SyscallView, call_count, syscall_view
from tui.panes.base import Pane, graph_rows, rate_graph
from tui.panes.syscall_cells import Row, duration, errnos, maximum, rated, spent, within, words
from tui.panes.table import Column, Table
from tui.shared.styled_lines import Line, Span
from tui.shared.text import at_most, fmt_count, fmt_ns, fmt_percent, fmt_within, safe
from tui.shared.theme import bar

LINGER = 10.0
"""Seconds that an idle row stays, below the others."""
BUSIEST = 500
"""Most processes in the table while it is sorted by rate."""
BAR = 8


class SyscallPane(Pane):
    """System calls of the machine, in the last interval or a longer window."""

    name = "syscalls"
    weight = 6
    reading = (
        "untimed: calls whose duration is not known. SIGSYS: refused by seccomp. A call that is "
        "made again after a signal is one. Of work by io_uring only io_uring_enter is seen."
    )

    def __init__(self) -> None:
        super().__init__()
        self.view: SyscallView | None = None
        self.by_process = False
        self.path: list[Row] = []
        self.hidden = 0
        self.ended = 0
        self._tables: dict[tuple[Hashable, ...], Table[Row]] = {}
        self._quiet: dict[tuple[Hashable, ...], dict[Hashable, tuple[float, Row]]] = {}

    # -- what is shown ----------------------------------------------------------------

    def tick(self, before: Frame | None, after: Frame) -> None:
        """Add the interval's rate to the graph."""
        sample, was = self._samples(before, after)
        # Without an earlier Sample, the counts may cover more than one interval.
        if sample is None or was is None or sample.state != "on":
            self.history.add(after, None)
            return
        seconds = counted_seconds(was, sample, seconds_between(before, after))
        if seconds > SHORTEST:
            self.history.add(after, call_count(was, sample) / seconds, seconds)

    def show(self, since: Frame | None, after: Frame, passed: float = 0.0) -> None:
        """Compute the window's rates and update the shown table."""
        super().show(since, after, passed)
        sample, was = self._samples(since, after)
        if sample is None or sample.state != "on":
            self.view = None
            return
        seconds = counted_seconds(was, sample, seconds_between(since, after))
        if self.view is not None and was is not None and seconds <= SHORTEST:
            # Between bursts nothing is measured, so the last estimates stay.
            return
        self.view = syscall_view(was, sample, seconds)
        self._feed(passed)

    def _samples(
        self, before: Frame | None, after: Frame
    ) -> tuple[SyscallSample | None, SyscallSample | None]:
        """The probe's Samples, the newer one first."""
        new = after.samples.get(self.name)
        old = before.samples.get(self.name) if before is not None else None
        return (
            new if isinstance(new, SyscallSample) else None,
            old if isinstance(old, SyscallSample) else None,
        )

    @property
    def seconds(self) -> float | None:
        """The window's length."""
        return None if self.view is None else self.view.seconds

    def reset(self) -> None:
        """Drop the history and idle rows."""
        super().reset()
        self._quiet.clear()

    @property
    def _place(self) -> tuple[Hashable, ...]:
        return (self.by_process, *[row.key for row in self.path])

    @property
    def _shows_processes(self) -> bool:
        """True if the table lists processes; each level of the drill-down changes the kind."""
        return self.by_process if not self.path else self.path[-1].pid is None

    @property
    def latency(self) -> bool:
        """True while durations are measured."""
        return isinstance(self.sample, SyscallSample) and self.sample.latency is not None

    @property
    def table(self) -> Table[Row]:
        """The shown table, which is created on first use."""
        place = self._place
        table = self._tables.get(place)
        if table is None:
            if len(self._tables) > 50:
                self._tables.clear()
                self._quiet.clear()
            table = Table(self._columns(), lambda row: row.key, words, sort=self._rate_column())
            self._tables[place] = table
        return table

    def _rate_column(self) -> int:
        return 2 if self._shows_processes else 1

    def _columns(self) -> list[Column[Row]]:
        share: Column[Row] = Column(
            "share", 6, lambda row: (fmt_percent(row.share, 1.0), "text"), None, drop=4
        )
        shape: Column[Row] = Column("", BAR, self._bar, None, right=False, drop=6)
        rate: Column[Row] = Column(
            "/s", 6, lambda r: rated(r.rate, "value", r.within is not None), lambda r: r.rate
        )
        errors: Column[Row] = Column(
            "err/s", 6, lambda r: rated(r.errors, "error", r.within is not None), lambda r: r.errors
        )
        if self._shows_processes:
            pid: Column[Row] = Column("pid", 7, lambda r: (str(r.pid), "dim"), lambda r: r.pid)
            comm: Column[Row] = Column(
                "process", 16, lambda r: (r.name, "proc"), lambda r: r.name, right=False
            )
            shape = replace(shape, cells=16, grow=False)
            return [pid, comm, rate, *self._within(), errors, share, shape]
        call: Column[Row] = Column(
            "call", 16, lambda r: (r.name, "name" if r.rate else "dim"), lambda r: r.name, False
        )
        columns = [call, rate, *self._within(), errors, share, shape]
        if self.latency and not self.path:
            columns += [
                replace(duration("p50"), drop=3),
                duration("p99"),
                maximum(self.view.calls if self.view else ()),
                Column("time/s", 6, lambda r: (fmt_ns(spent(r)), "text"), spent, drop=2),
            ]
        if not self.path:
            columns.append(
                Column("errors by name", 14, errnos, None, right=False, drop=5, grow=True)
            )
        return columns

    def _within(self) -> list[Column[Row]]:
        """The uncertainty of the rates, while they are estimated."""
        if self.view is None or self.view.duty is None:
            return []
        return [Column(self.theme.glyphs.within, 4, within, lambda r: r.within, drop=2)]

    def _bar(self, row: Row) -> Span:
        cells = 16 if self._shows_processes else BAR
        drawn = self.theme.drawings
        return (bar(row.share or 0.0, cells, self.theme.glyphs), "bar") if drawn else ("", "")

    def _rows(self, view: SyscallView) -> list[Row]:
        seconds = view.seconds
        calls: Sequence[CallRow] = view.calls
        if self.path and self.path[-1].number is not None:
            calls = view.calls_of(self.path[-1].number)
        if self._shows_processes:
            return self._processes(view)
        whole = sum([row.count for row in calls]) or 1
        self.hidden = self.ended = 0
        return [
            Row(
                c.name, None, c.count / seconds, c.errors / seconds, c.count / whole, c, seconds,
                _within(view, c.error),
            )
            for c in calls
        ]  # fmt: skip

    def _processes(self, view: SyscallView) -> list[Row]:
        """Rows of processes; the title's count includes the `ended` ones."""
        processes: Sequence[ProcessRow] = view.processes
        ended, whole = view.ended, view.count - view.unattributed
        if self.path:
            name = self.path[-1].name
            call = next((c for c in view.calls if c.name == name), CallRow(name, 0, 0))
            processes = view.processes_of(name)
            ended, whole = view.ended_of(call), call.count
        shown = processes[: self._most()]
        self.hidden, self.ended = len(processes) - len(shown), ended.n
        return [
            Row(
                p.comm, p.number, p.count / view.seconds, p.errors / view.seconds,
                p.count / max(whole, 1), within=_within(view, p.error),
            )
            for p in shown
        ]  # fmt: skip

    def _most(self) -> int | None:
        """Most rows of the busiest processes; None (all) for another order or a text filter."""
        table = self.table
        by_rate = table.sort_by == self._rate_column() and not table.reverse
        return BUSIEST if by_rate and not self.filter else None

    def _feed(self, passed: float = 0.0) -> None:
        if self.view is None:
            return
        rows = self._rows(self.view)
        quiet = self._quiet.setdefault(self._place, {})
        if self.hidden:
            # A row that is not among the busiest may still be active.
            quiet.clear()
        active = {row.key for row in rows}
        for key, (age, row) in list(quiet.items()):
            if key in active:
                continue
            age += passed
            if age > LINGER:
                del quiet[key]
                continue
            quiet[key] = (age, row)
            rows.append(row)
        for row in rows[: len(active)]:
            quiet[row.key] = (0.0, Row(row.name, row.number, 0.0, 0.0, 0.0))
        table = self.table
        table.set_columns(self._columns())
        if table.filter != self.filter:
            table.filter = self.filter
        table.feed(rows)

    def crumbs(self) -> list[str]:
        """The rows that are drilled into."""
        start = ["by process"] if self.by_process else []
        return start + [words(row) for row in self.path]

    def headline(self) -> list[Span]:
        """Calls and errors per second, and notes on incomplete figures."""
        view, sample = self.view, self.sample
        if view is None or not isinstance(sample, SyscallSample):
            return []
        estimated, off = view.duty is not None, _within(view, view.error)
        rate = view.count / view.seconds
        out: list[Span] = [rated(rate, "value", estimated), ("/s", "dim")]
        if off is not None:
            out.append((f" {self.theme.glyphs.within}{fmt_within(off, rate)}", "dim"))
        if estimated and sample.given_up is not None:
            # A long title loses its last figures, so the reductions come before their reason.
            out += [(f"  {words}", "warn") for words in safe(sample.given_up).split(": ")]
        errors = rated(view.errors / view.seconds, "error", estimated)
        out += [("  err ", "dim"), errors, ("/s", "dim")]
        if sample.latency is not None and sample.sample_every > 1:
            out.append((f"  timed 1 in {sample.sample_every}", "warn"))
        elif sample.given_up is not None and not estimated:
            out.append((f"  {safe(sample.given_up)}", "warn"))
        if view.unattributed > 0:
            out += [
                ("  no process ", "warn"),
                (fmt_count(view.unattributed / view.seconds) + "/s", "warn"),
            ]
        if self.ended > 0:
            out.append((f"  ended {fmt_count(self.ended / view.seconds)}/s", "warn"))
        if view.untimed:
            out.append((f"  untimed {fmt_count(view.untimed / view.seconds)}/s", "warn"))
        return out

    def body(self, width: int, height: int, focused: bool) -> list[Line]:
        """The rate graph if it fits, the table and the notes."""
        if self.view is None:
            return []
        rows = graph_rows(height)
        lines = rate_graph(self.history, width, rows, self.theme, self.interval) + self._about()
        notes = self._notes() if height > 6 else []
        room = height - len(lines) - len(notes)
        return lines + self.table.lines(width, room, self.theme, focused) + notes

    def _about(self) -> list[Line]:
        """One line about the system call that is drilled into."""
        if not self.path or self.path[-1].pid is not None or self.view is None:
            return []
        call = next((c for c in self.view.calls if c.name == self.path[-1].name), None)
        if call is None:
            return [((" no call in this interval", "dim"),)]
        seconds = self.view.seconds
        out: list[Span] = [(" ", "")]
        if call.p50 is not None:
            longest = at_most(fmt_ns(call.maximum), call.exact)
            for label, text in (("p50", fmt_ns(call.p50)), ("p99", fmt_ns(call.p99)),
                                ("max", longest)):  # fmt: skip
                out += [(f"{label} ", "dim"), (f"{text:<7}", "value")]
        out += [("err/s ", "dim"), (f"{fmt_count(call.errors / seconds):<6} ", "value")]
        row = Row(call.name, None, call.count / seconds, 0.0, None, call, seconds)
        return [(*out, *errnos(row))]

    def _notes(self) -> list[Line]:
        notes = list(self.sample.notes if self.sample else ())
        if self.hidden:
            notes.append(f"the {BUSIEST} busiest; {self.hidden} more were active: / finds them")
        return [((" " + note, "dim"),) for note in notes]

    # -- what keys do -------------------------------------------------------------------

    def move(self, to: str) -> None:
        """Move the cursor."""
        self.table.move(to)

    def enter(self) -> bool:
        """Drill down from a call into its processes, or from a process into its calls."""
        row = self.table.current()
        if row is None or self.view is None:
            return False
        if len(self.path) > 1 and self.path[-2].key == row.key:
            return self.back()
        self.path.append(row)
        # The text filter of the calls does not apply to their processes.
        self.table.filter = ""
        self._moved()
        return True

    def back(self) -> bool:
        """Leave one level of the drill-down."""
        if not self.path:
            return False
        self.path.pop()
        self._moved()
        return True

    def _moved(self) -> None:
        """Restore the text filter of the table that is shown now."""
        self.filter = self.table.filter
        self._feed()

    def sort(self, reverse: bool = False) -> None:
        """Sort by the next column, or reverse the order."""
        self.table.sort(reverse)
        self._feed()

    def set_filter(self, text: str) -> None:
        """Filter the shown table by name or pid."""
        super().set_filter(text)
        self._feed()

    def selected_pid(self) -> int | None:
        """The process id under the cursor, or of the process that is drilled into."""
        row = self.table.current()
        if row is not None and row.pid is not None:
            return row.pid
        return next((row.pid for row in reversed(self.path) if row.pid is not None), None)

    def hints(self) -> list[tuple[str, str]]:
        """The keys v and l."""
        view = "by call" if self.by_process else "by process"
        return [("v", view), ("l", "latency off" if self.latency else "latency")]

    def options(self) -> list[tuple[str, str]]:
        """Palette entries for v and l."""
        return [
            ("v", "System calls: by call or by process"),
            ("l", "System calls: latency on or off (costs more than counting)"),
        ]

    def press(self, key: str) -> bool:
        """v switches between calls and processes; l switches latency on or off."""
        if key == "v":
            self.by_process = not self.by_process
            self.path.clear()
            self._moved()
        elif key == "l" and self.source is not None:
            self.source.set_option(self.name, "latency", not self.latency)
        else:
            return False
        return True


def _within(view: SyscallView, error: float | None) -> float | None:
    """The uncertainty of a rate per second, from the standard error of its count."""
    if error is None or view.duty is None:
        return None
    return error * factor(view.duty) / view.seconds
