# SPDX-License-Identifier: Apache-2.0
"""The exec pane: one row per program, newest first.

Its rows come from `probes.execs.process_log`.
"""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable, Hashable
from functools import lru_cache

from probes.budget.policy import SAMPLING
from probes.core.cgroup_names import CgroupName, describe
from probes.core.delta import seconds_between
from probes.core.elapsed import counted_seconds
from probes.core.estimates import factor
from probes.core.frame import Frame
from probes.execs.failed_execs import failed_estimate
from probes.execs.process_log import ExecLog, ExecRow, group_of
from probes.execs.sample import ExecSample
from tui.panes.base import Pane, graph_rows, rate_graph
from tui.panes.exec_failures import Failures
from tui.panes.table import Column, Table
from tui.shared.styled_lines import Line, Span
from tui.shared.text import UNKNOWN, fmt_count, fmt_ns, fmt_within, safe, wrap

FRESH = 6.0
"""Seconds that an estimate of failures stays valid: there is about one in four seconds."""


@lru_cache(maxsize=1024)
def user_name(uid: int | None) -> str:
    """A user's name on this machine, else the number; a dash if the number is unknown."""
    if uid is None:
        return UNKNOWN
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def _clock(when: float, form: str = "%H:%M:%S") -> str:
    return time.strftime(form, time.localtime(when))


def _outcome(row: ExecRow) -> Span:
    text = row.outcome()
    if row.failed or row.signal:
        return (text, "bad")
    if row.exit_code:
        return (text, "warn")
    return (text, "dim" if row.replaced or text == UNKNOWN else "good")


def _argv(row: ExecRow) -> list[Span]:
    # A cell has at most a few hundred columns, so 4 KiB of arguments are not quoted for each
    # drawing.
    text = row.command[:1000] + (" ..." if row.truncated else "")
    out: list[Span] = [(text, "dim" if row.failed or not row.args else "text")]
    if row.failed and row.tries > 1:
        out.append((f"  {row.tries} tries, last {row.path or UNKNOWN}", "dim"))
    return out


def _file(row: ExecRow) -> str:
    """The executed file, and the number of other paths that were tried."""
    path = (row.path or UNKNOWN) + (", truncated at 127 bytes" if row.path_truncated else "")
    if row.failed:
        return f"{path}, the last of {row.tries} tries" if row.tries > 1 else path
    if not row.tries:
        return path
    return f"{path}, found after {row.tries} {'tries' if row.tries > 1 else 'try'} that failed"


def _parent(row: ExecRow) -> list[Span]:
    if row.ppid is None:
        return [(UNKNOWN, "dim")]
    return [(row.parent or "?", "proc"), (f" {row.ppid}", "dim")]


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def _words(row: ExecRow, user: str, group: str) -> str:
    argv = " ".join(row.args or (row.comm,))
    return f"{row.pid} {row.parent} {user} {group} {row.outcome()} {argv}"


def _key(row: ExecRow) -> Hashable:
    """A row's identity, which stays the same if its events are read again."""
    return row.pid, row.time


def _columns(
    user: Callable[[ExecRow], str], group: Callable[[ExecRow], str]
) -> list[Column[ExecRow]]:
    return [
        Column("time", 8, lambda r: (_clock(r.time), "dim"), lambda r: r.time, right=False),
        Column("pid", 7, lambda r: (str(r.pid), "text"), lambda r: r.pid),
        Column(
            "user",
            8,
            lambda r: (user(r), "text"),
            user,
            right=False,
            drop=3,
            most=12,
        ),
        Column("parent", 8, _parent, lambda r: r.parent, right=False, drop=2, most=20, whole=True),
        Column(
            "cgroup",
            12,
            lambda r: (group(r), "dim"),
            group,
            right=False,
            drop=5,
            most=20,
        ),
        Column("dur", 5, lambda r: (fmt_ns(r.duration), "text"), lambda r: r.duration),
        Column("exit", 7, _outcome, lambda r: r.outcome(), right=False),
        Column("argv", 20, _argv, lambda r: r.command, right=False, grow=True),
    ]


class ExecPane(Pane):
    """Program executions as they happen."""

    name = "execs"
    weight = 7

    def __init__(self) -> None:
        super().__init__()
        self.log = ExecLog()
        self.names: dict[str, CgroupName] = {}
        self.rate: float | None = None
        self.failed_rate: float | None = None
        self.within: float | None = None
        self._known: tuple[float, float, float] | None = None
        self.dropped = 0
        self.detail: ExecRow | None = None
        self.detail_top = 0
        self.table: Table[ExecRow] = Table(
            _columns(self._user, self._group),
            _key,
            lambda row: _words(row, self._user(row), self._group(row)),
            empty="no program was executed yet",
        )
        self._over: float | None = None
        self._again: Hashable = None
        self._failures = Failures()

    def tick(self, before: Frame | None, after: Frame) -> None:
        """Add the interval's events to the log and its rate to the graph."""
        sample = after.samples.get(self.name)
        if not isinstance(sample, ExecSample):
            self.history.add(after, None)
            return
        self._failures.begin(after.mono - seconds_between(before, after), self.log.failed)
        self.log.add(sample.events, after.time)
        self.names.update(sample.names)
        self.dropped += sample.dropped
        self._failures.add(after.mono, self.log.failed)
        known = before is not None and isinstance(before.samples.get(self.name), ExecSample)
        if known and sample.state == "on":
            seconds = self._counted(before, after, sample)
            self.history.add(after, self._rate(before, after), seconds)
        else:
            self.history.add(after, None)

    def show(self, since: Frame | None, after: Frame, passed: float = 0.0) -> None:
        """Compute the window's rates and update the table."""
        super().show(since, after, passed)
        self._over = self.rate = self.failed_rate = self.within = None
        if isinstance(self.sample, ExecSample) and self.sample.state == "on":
            self._over = self._counted(since, after, self.sample)
            self.rate = self._rate(since, after)
            failed = self._failures.since(after.mono - self._over)
            # While the budget switches the count of failures off, their number is unknown.
            seen = failed is not None and not (self.sample and self.sample.given_up)
            self.failed_rate = failed / self._over if seen and failed is not None else None
            self._estimate(since, after, self.sample)
        self.table.feed(list(reversed(self.log.rows)))
        if self._again is not None:
            self.detail = next((row for row in self.log.rows if _key(row) == self._again), None)
            self._again = None

    def _estimate(self, since: Frame | None, after: Frame, sample: ExecSample) -> None:
        """The rate of failures and its uncertainty while failures are counted in bursts.

        Keeps the last estimate until enough bursts yield the next one.
        """
        old = since.samples.get(self.name) if since is not None else None
        found = failed_estimate(old if isinstance(old, ExecSample) else None, sample)
        if found is not None and found.duty.seconds:
            seconds = found.duty.seconds
            off = factor(found.duty) * found.error / seconds
            self._known = (after.mono, found.estimate.n / seconds, off)
        if not (sample.given_up or "").startswith(SAMPLING):
            self._known = None if found is None else self._known
        if self._known is not None and abs(after.mono - self._known[0]) <= FRESH:
            _, self.failed_rate, self.within = self._known

    def _user(self, row: ExecRow) -> str:
        """A row's user name; a row of another machine has only the number.

        A different effective user, as in a setuid program, follows the real one.
        """
        named = user_name if self.here else _number
        both = row.euid is not None and row.euid != row.uid
        return f"{named(row.uid)}>{named(row.euid)}" if both else named(row.uid)

    def _users(self, row: ExecRow) -> str:
        """The real user, and the effective user if it differs, each with its number."""
        users = {"": row.uid}
        if row.euid is not None and row.euid != row.uid:
            users["effective "] = row.euid
        return ", ".join(
            [
                f"{what}{user_name(uid)} ({uid})"
                if self.here and uid is not None
                else f"{what}{_number(uid)}"
                for what, uid in users.items()
            ]
        )

    def _group(self, row: ExecRow) -> str:
        """A row's control group, shortened."""
        return group_of(row.cgroup, self.names)

    def _where(self, row: ExecRow) -> str:
        """A row's cgroup names, from outer to inner, and its path."""
        if row.cgroup is None:
            return UNKNOWN
        name = self.names.get(row.cgroup) or describe(row.cgroup)
        words = (name.runtime, name.namespace, name.pod, name.container)
        said = " ".join(word for word in words if word)
        # The name of a systemd unit is part of the path, so it is not repeated.
        return f"{said}  {row.cgroup}" if said else row.cgroup

    def _rate(self, since: Frame | None, after: Frame) -> float | None:
        """Executions per second; None without a Sample."""
        sample = after.samples.get(self.name)
        old = since.samples.get(self.name) if since is not None else None
        if not isinstance(sample, ExecSample):
            return None
        same = isinstance(old, ExecSample) and old.generation == sample.generation
        base = old.execs if isinstance(old, ExecSample) and same else 0
        return (sample.execs - base) / self._counted(since, after, sample)

    def _counted(self, since: Frame | None, after: Frame, sample: ExecSample) -> float:
        """Seconds since then in which the probe counted."""
        old = since.samples.get(self.name) if since is not None else None
        return counted_seconds(old, sample, seconds_between(since, after))

    @property
    def seconds(self) -> float | None:
        """The window's length."""
        return self._over

    def reset(self) -> None:
        """Drop all rows; a row in the full view returns if its events come again."""
        super().reset()
        self.log.clear()
        self.names.clear()
        self._failures.clear()
        self.dropped = 0
        self._again = None if self.detail is None else _key(self.detail)
        self.detail = None
        self.table.feed([])

    def crumbs(self) -> list[str]:
        """The row in the full view."""
        return [] if self.detail is None else [f"pid {self.detail.pid}"]

    def headline(self) -> list[Span]:
        """Executions and failed executions per second; one search through PATH counts once."""
        if self.rate is None:
            return []
        out: list[Span] = [(fmt_count(self.rate), "value"), ("/s", "dim"), ("  failed ", "dim")]
        failed, mark = self.failed_rate, "" if self.within is None else "~"
        out += [(mark + fmt_count(failed), "bad" if failed else "dim"), ("/s", "dim")]
        if self.within is not None and failed:
            off = fmt_within(self.within, failed)
            out.append((f" {self.theme.glyphs.within}{off}", "dim"))
        if self.sample is not None and self.sample.given_up is not None:
            # A long title loses its last figures, so the reductions come before their reason.
            out += [(f"  {words}", "warn") for words in self.sample.given_up.split(": ")]
        if self.dropped:
            out.append((f"  not shown {fmt_count(self.dropped)}", "warn"))
        return out

    def body(self, width: int, height: int, focused: bool) -> list[Line]:
        """The rate graph, if it fits, and the table; or one row in full."""
        if self.detail is not None:
            lines = self._details(self.detail, width)
            self.detail_top = max(0, min(self.detail_top, len(lines) - height))
            return lines[self.detail_top :]
        graphs = rate_graph(self.history, width, graph_rows(height), self.theme, self.interval)
        return graphs + self.table.lines(width, height - len(graphs), self.theme, focused)

    def _details(self, row: ExecRow, width: int) -> list[Line]:
        ended = UNKNOWN if row.ended is None else _clock(row.ended)
        parent = UNKNOWN if row.ppid is None else f"{row.parent} ({row.ppid})"
        facts = [
            ("time", _clock(row.time, "%Y-%m-%d %H:%M:%S")),
            ("pid", f"{row.pid} ({row.comm})"),
            ("file", _file(row)),
            ("parent", parent),
            ("user", self._users(row)),
            ("cgroup", self._where(row)),
            ("ended", f"{ended}  after {fmt_ns(row.duration)}" if row.ended else UNKNOWN),
            ("exit", row.outcome()),
        ]
        lines: list[Line] = []
        for name, value in facts:
            lines += _fact(name, value, width, _outcome(row)[1] if name == "exit" else "text")
        cut = ", cut off at 4 KiB by the kernel side" if row.truncated else ""
        count = f"{len(row.args)} arguments{cut}" if row.args is not None else "not read"
        lines += _fact("argv", count, width, "dim")
        for at, arg in enumerate(row.args or ()):
            lines += _fact(str(at), arg, width, "text")
        return lines

    def move(self, to: str) -> None:
        """Move the cursor, or scroll the full view."""
        if self.detail is None:
            self.table.move(to)
            return
        steps = {"up": -1, "down": 1, "pageup": -10, "pagedown": 10, "home": -9999, "end": 9999}
        self.detail_top = max(0, self.detail_top + steps.get(to, 0))

    @property
    def drills(self) -> bool:
        """True except in the full view."""
        return super().drills and self.detail is None

    def enter(self) -> bool:
        """Show the row under the cursor in full."""
        if self.detail is not None:
            return False
        self.detail = self.table.current()
        self.detail_top = 0
        if self.detail is not None and self.table.selected is None:
            self.table.selected = _key(self.detail)
        return self.detail is not None

    def back(self) -> bool:
        """Return to the table."""
        if self.detail is None:
            return False
        self.detail = None
        return True

    def sort(self, reverse: bool = False) -> None:
        """Sort by the next column, or reverse the order."""
        self.table.sort(reverse)

    def set_filter(self, text: str) -> None:
        """Show rows whose pid, parent, user, cgroup, exit or argv contains `text`."""
        super().set_filter(text)
        self.table.set_filter(text)

    def selected_pid(self) -> int | None:
        """The process id under the cursor."""
        row = self.detail or self.table.current()
        return row.pid if row is not None else None


def _fact(name: str, value: str, width: int, style: str) -> list[Line]:
    room = max(10, width - 10)
    first, *rest = wrap(safe(value), room)
    lines: list[Line] = [((f" {name:>7} ", "head"), (first, style))]
    return lines + [((" " * 9, ""), (line, style)) for line in rest]
