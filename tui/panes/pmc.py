# SPDX-License-Identifier: Apache-2.0
"""The PMC pane: is the CPU working or waiting, and for whom.

    -- 4 PMC -- base  user+kernel  IPC 0.81  ran 62% ------------------------------------
     cpu0 0.61 ######        42.1%   cpu1 1.92 ########      57.0%     tui.panes.cpu_strip
     IPC 0.81 machine                                                  tui.panes.pmc_graphs
     pid     process   cpu  cyc/s  IPC  miss/ki  brmiss ...            tui.panes.pmc_columns
     * scaled: counted for 62% of the time or more                     notes

Its numbers are those of `probes.pmc.view`. Enter shows a process's counters one by one
(`tui.panes.pmc_detail`). Without hardware counters it shows what is known without.
"""

from __future__ import annotations

from probes.core.delta import seconds_between
from probes.core.elapsed import counted_seconds
from probes.core.estimates import factor
from probes.core.frame import Frame
from probes.core.process_keys import pid_of
from probes.pmc.bursts import SWITCHES
from probes.pmc.events import CUSTOM, MODES, SETS
from probes.pmc.sample import PmcSample
from probes.pmc.view import PmcView, TaskRow, pmc_view
from tui.panes import cpu_strip, pmc_detail
from tui.panes.asked_options import RequestedOptions
from tui.panes.base import Pane
from tui.panes.pmc_columns import (
    IPC,
    Row,
    columns,
    first_sort,
    fmt_share,
    fmt_small,
    never_ran,
    note_of_marks,
    words,
)
from tui.panes.pmc_graphs import SIDE, Past, graphs
from tui.panes.table import Table
from tui.shared.styled_lines import Line, Span
from tui.shared.text import fmt_count, fmt_within, safe, wrap

LINGER = 10
"""Intervals that an idle process keeps its row, and that marks keep their column."""
BUSIEST = 500
"""Most processes in the table while it is sorted by use."""
DRAWN = 16
"""Lines from which the pane has graphs."""
MODE_WORDS = {"all": "user+kernel", "user": "user only", "kernel": "kernel only"}


class PmcPane(Pane):
    """Hardware counters by CPU and by process."""

    name = "pmc"
    weight = 6
    reading = (
        "IPC: instructions a cycle; under 1 (yellow) and 0.5 (red) the CPU waits more than it "
        "works: look for stalls. /ki: in 1000 instructions. brmiss: branches mispredicted, "
        "costly over 3 % (8 %). Cache misses over 5 (20) /ki: memory is the limit. *: scaled, "
        "for counters were shared; ran: for how much of the time. wait: runnable, without CPU."
    )

    def __init__(self) -> None:
        super().__init__()
        self.view: PmcView | None = None
        self.past = Past()
        self.drilled: TaskRow | None = None
        self._newest: tuple[Frame | None, PmcView] | None = None
        self.hidden = 0
        self._marks = 0
        self._own_events = False
        self._requested = RequestedOptions()
        self._quiet: dict[int, tuple[int, str]] = {}
        self._tables: dict[bool, Table[Row]] = {}
        self.items = pmc_detail.table()

    # -- what is shown ----------------------------------------------------------------

    def tick(self, before: Frame | None, next_choice: Frame) -> None:
        """Add the interval's figures to the graphs."""
        self._newest = None
        sample, was = self._samples(before, next_choice)
        if sample is None:
            self.past.gap(next_choice)
            return
        passed = seconds_between(before, next_choice)
        view = pmc_view(was, sample, counted_seconds(was, sample, passed))
        self._newest = (before, view)
        # Without an earlier Sample, the counts may cover more than one interval.
        if was is not None and was.state == "on" and was.generation == sample.generation:
            self.past.add(next_choice, view)
        else:
            self.past.gap(next_choice)

    def show(self, since: Frame | None, next_choice: Frame, passed: float = 0.0) -> None:
        """Compute the window's counts and update the shown table."""
        super().show(since, next_choice, passed)
        sample, was = self._samples(since, next_choice)
        if sample is None:
            self.view = None
            return
        newest = self._newest
        if passed and newest is not None and newest[0] is since:
            view = newest[1]
        else:
            seconds = counted_seconds(was, sample, seconds_between(since, next_choice))
            view = pmc_view(was, sample, seconds)
        self.view = view
        if passed:
            self._requested.update({"set": sample.event_set, "mode": sample.mode})
        self._own_events |= sample.event_set not in SETS
        scaled = any(count.scaled for count in view.machine.counts.values())
        self._marks = LINGER if scaled else max(0, self._marks - (passed > 0))
        self._feed(aged=passed > 0)

    def _samples(
        self, before: Frame | None, next_choice: Frame
    ) -> tuple[PmcSample | None, PmcSample | None]:
        """The probe's Samples, the newer one first; None unless the probe is on."""
        new = next_choice.samples.get(self.name)
        old = before.samples.get(self.name) if before is not None else None
        return (
            new if isinstance(new, PmcSample) and new.state == "on" else None,
            old if isinstance(old, PmcSample) else None,
        )

    @property
    def seconds(self) -> float | None:
        """The window's length."""
        return None if self.view is None else self.view.seconds

    def reset(self) -> None:
        """Drop the graphs and idle rows."""
        super().reset()
        self.past.clear()
        self._quiet.clear()

    @property
    def table(self) -> Table[Row]:
        """The table of processes, sorted by cycles if they are counted, else by CPU time."""
        sample = self.sample
        assert isinstance(sample, PmcSample)
        if sample.hardware not in self._tables:
            update = columns(sample, False)
            sort = first_sort(update, sample.hardware)
            empty = "no process ran in this interval"
            self._tables[sample.hardware] = Table(
                update, lambda row: row.number, words, sort=sort, empty=empty
            )
        return self._tables[sample.hardware]

    def _feed(self, aged: bool = False) -> None:
        view = self.view
        if view is None:
            return
        if self.drilled is not None:
            number = self.drilled.number
            if number in view.processes.ids():
                row = view.processes.row(number)
            else:
                row = TaskRow(0, 0, 0, number=number, comm=self.drilled.comm)
            self.drilled = row
            self.items.filter = self.filter
            self.items.feed(pmc_detail.items(row, view))
        table = self.table
        update = view.processes[: self._most(view)]
        self.hidden = len(view.processes) - len(update)
        rows = [Row(task, view) for task in update] + self._resting(view, aged)
        estimated = view.duty is not None
        table.set_columns(columns(view.sample, self._marks > 0, estimated))
        table.filter = self.filter if self.drilled is None else ""
        table.feed(rows)

    def _most(self, view: PmcView) -> int | None:
        """Most rows of the busiest processes; None (all) for another order or a text filter."""
        table = self.table
        by_use = table.sort_by == first_sort(table.columns, view.sample.hardware)
        return BUSIEST if by_use and not table.reverse and not self.filter else None

    def _resting(self, view: PmcView, aged: bool) -> list[Row]:
        """Rows of processes that ran recently, so that rows do not flicker.

        Empty if more processes ran than the table shows: there is no line left for idle ones.
        """
        if len(view.processes) > BUSIEST:
            self._quiet = {}
            return []
        comms = view.sample.comms
        active = {number: (0, comms.get(number, "?")) for number in view.processes.ids()}
        out = []
        for number, (age, comm) in self._quiet.items():
            if number in active or age + aged > LINGER:
                continue
            active[number] = (age + aged, comm)
            out.append(Row(TaskRow(0, 0, None, number=number, comm=comm), view, quiet=True))
        self._quiet = active
        return out

    def crumbs(self) -> list[str]:
        """The process that is drilled into."""
        return [] if self.drilled is None else [f"{self.drilled.comm} {self.drilled.pid}"]

    def headline(self) -> list[Span]:
        """The counted events, the share of time that they ran, and the machine's figures."""
        view = self.view
        if view is None:
            return []
        sample, machine = view.sample, view.machine
        out: list[Span] = []
        if sample.hardware:
            out += [(sample.event_set, "value"), (f"  {MODE_WORDS[sample.mode]}", "dim")]
            out += [("  IPC ", "dim"), (fmt_small(machine.ipc), IPC.style(machine.ipc))]
            running = machine.running
            scaled = running is not None and running < 0.995
            out.append((f"  ran {fmt_share(running)}", "warn" if scaled else "dim"))
            missing = never_ran(view)
            if missing:
                out.append((f"  {len(missing)} never ran", "warn"))
        else:
            out += [("no hardware counters", "warn")]
        mark = "" if view.duty is None else "~"
        out += [("  cpu ", "dim"), (mark + fmt_share(machine.busy), "value")]
        out += [("  ctx ", "dim"), (mark + fmt_count(machine.switches / view.seconds), "value")]
        out.append(("/s", "dim"))
        error = machine.error(SWITCHES, view.duty)
        if error is not None and view.duty is not None:
            off = fmt_within(error * factor(view.duty), machine.switches)
            out.append((f" {self.theme.glyphs.within}{off}", "dim"))
        if sample.given_up is not None:
            # A long title loses its last figures, so the reductions come before their reason.
            out += [(f"  {words}", "warn") for words in sample.given_up.split(": ")]
        if view.unattributed:
            out.append((f"  no process {fmt_count(view.unattributed / view.seconds)}/s", "warn"))
        return out

    def body(self, width: int, height: int, focused: bool) -> list[Line]:
        """The CPUs, the graphs if they fit, the table and the notes."""
        view = self.view
        if view is None:
            return []
        notes = self._notes(view, width)[: height // 6] if height > 7 else []
        if self.drilled is not None:
            return self._one_process(view, width, height, focused)
        lines = cpu_strip.strip(view, width, cpu_strip.rows_for(height), self.theme)
        if height >= DRAWN:
            lines += self._graphs(view, width, height)
        room = height - len(lines) - len(notes)
        return lines + self.table.lines(width, room, self.theme, focused) + notes

    def _one_process(self, view: PmcView, width: int, height: int, focused: bool) -> list[Line]:
        """The derived figures, a graph if it fits, and the counters one by one."""
        row = self.drilled
        ran = row if row is not None and (row.clock or row.switches) else None
        lines = pmc_detail.summary(ran, view, width)[: max(1, height // 3)]
        if height >= DRAWN:
            lines += self._graphs(view, width, height)
        mark = note_of_marks(view) if height >= DRAWN else None
        notes: list[Line] = [((" " + mark, "dim"),)] if mark else []
        room = height - len(lines) - len(notes)
        return lines + self.items.lines(width, room, self.theme, focused) + notes

    def _graphs(self, view: PmcView, width: int, height: int) -> list[Line]:
        if not self.theme.drawings:
            return []
        rows = max(4, height // 5) if width < SIDE else max(3, height // 5)
        chosen = self._chosen()
        named = "machine" if chosen is None else f"{self._comm(chosen)} {pid_of(chosen)}"
        who = (named, chosen)
        safe_who = (safe(who[0], self.theme.plain), who[1])
        return graphs(self.past, view, safe_who, (width, rows), self.theme, self.interval)

    def _chosen(self) -> int | None:
        """The process to draw; None draws the machine, as long as the cursor was not moved."""
        if self.drilled is not None:
            return self.drilled.number
        row = self.table.current() if self.table.selected is not None else None
        return None if row is None else row.number

    def _comm(self, number: int) -> str:
        sample = self.sample
        assert isinstance(sample, PmcSample)
        return sample.comms.get(number, "?")

    def _notes(self, view: PmcView, width: int) -> list[Line]:
        """Notes: the lack of hardware counters, the meaning of the mark, omitted events."""
        sample = view.sample
        notes: list[tuple[str, str]] = []
        if not sample.hardware and sample.reason:
            notes.append((sample.reason, "warn"))
        marks = note_of_marks(view)
        if marks:
            notes.append((marks, "dim"))
        missing = never_ran(view)
        if missing:
            notes.append((f"never ran, no counter was free: {', '.join(missing)}", "warn"))
        if sample.hardware and sample.absent:
            absent = ", ".join(sample.absent)
            notes.append((f"not on this machine: {absent}; enter says why", "dim"))
        notes += [(note, "dim") for note in sample.notes]
        if self.hidden:
            more = f"the {BUSIEST} busiest; {self.hidden} more ran: / finds them"
            notes.append((more, "dim"))
        return [
            ((" " + line, style),)
            for text, style in notes
            for line in wrap(safe(text, self.theme.plain), max(10, width - 2))
        ]

    # -- what keys do -------------------------------------------------------------------

    def move(self, to: str) -> None:
        """Move the cursor."""
        if self.view is not None:
            (self.items if self.drilled is not None else self.table).move(to)

    @property
    def drills(self) -> bool:
        """True for a process; a counter has no further level."""
        return super().drills and self.drilled is None

    def enter(self) -> bool:
        """Drill down from a process to its counters."""
        if self.view is None or self.drilled is not None:
            return False
        row = self.table.current()
        if row is None:
            return False
        self.drilled = row.task
        self.items = pmc_detail.table()
        self.filter = ""
        self._feed()
        return True

    def back(self) -> bool:
        """Return to the processes."""
        if self.drilled is None:
            return False
        self.drilled = None
        self.filter = ""
        self._feed()
        return True

    def sort(self, reverse: bool = False) -> None:
        """Sort by the next column, or reverse the order."""
        if self.view is None:
            return
        (self.items if self.drilled is not None else self.table).sort(reverse)
        self._feed()

    def set_filter(self, text: str) -> None:
        """Filter processes by name and pid, counters by name."""
        super().set_filter(text)
        self._feed()

    def selected_pid(self) -> int | None:
        """The process id under the cursor, or of the process that is drilled into."""
        if self.drilled is not None:
            return self.drilled.pid
        row = self.table.current() if self.view is not None else None
        return None if row is None else row.pid

    def hints(self) -> list[tuple[str, str]]:
        """The keys g and u, if there is a choice."""
        sample = self.sample
        choice = isinstance(sample, PmcSample) and (sample.hardware or self._own_events)
        return [("g", "next set"), ("u", "user/kernel")] if choice else []

    def options(self) -> list[tuple[str, str]]:
        """Palette entries for g and u."""
        return [
            ("g", f"PMC: next event set ({', '.join(SETS)})"),
            ("u", "PMC: count user and kernel, user only, or kernel only"),
        ]

    def press(self, key: str) -> bool:
        """g selects the next event set; u selects the next of user, kernel or both."""
        sample = self.sample
        if not isinstance(sample, PmcSample) or self.source is None or key not in ("g", "u"):
            return False
        sets = (*SETS, CUSTOM) if self._own_events else tuple(SETS)
        option, choices, now = (
            ("set", sets, sample.event_set) if key == "g" else ("mode", tuple(MODES), sample.mode)
        )
        choice = self._requested.next_choice(option, choices, now)
        self.source.set_option(self.name, option, choice)
        self._requested.request(option, choice, now)
        return True
