# SPDX-License-Identifier: Apache-2.0
"""How often each program was executed, and how that ended: the rows of an ExecLog, counted."""

from __future__ import annotations

from dataclasses import dataclass, field

from probes.execs.process_log import SEARCH_SECONDS, ExecLog, ExecRow

MOST_PROGRAMS, MOST_CHARACTERS = 20_000, 256
"""Programs that are told apart, and characters of their names."""
OTHERS = "(other programs)"
"""What those beyond are counted as."""


@dataclass(slots=True)
class Program:
    """All executions of one program: `path` is the last one, `duration` ns of those that ended.

    `failed` counts searches that found no program to run, by errno; `nonzero` ends with an
    exit code other than 0, `killed` ends by a signal.
    """

    path: str | None = None
    starts: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    ended: int = 0
    duration: int = 0
    nonzero: int = 0
    killed: int = 0

    def add(self, row: ExecRow) -> None:
        """Count a row that will not change any more, or is the last that is known of it."""
        self.path = row.path or self.path
        if row.failed:
            why = row.outcome()
            self.failed[why] = self.failed.get(why, 0) + 1
            return
        # Who was there before the probe has a row only because a signal ended it.
        self.starts += row.ppid is not None
        if row.duration is not None:
            self.ended += 1
            self.duration += row.duration
            self.nonzero += bool(row.exit_code)
            self.killed += bool(row.signal)


def program_name(row: ExecRow) -> str:
    """What a program is called, wherever it lies: the last part of its path."""
    path = row.path or (row.args[0] if row.args else "") or row.comm
    return path.rpartition("/")[2] or path


class Programs:
    """Counts by program name of all rows that an ExecLog ever had.

    A log forgets old rows, and changes those that run or search: each is counted when it is
    final, or at the end.
    """

    def __init__(self) -> None:
        self._counts: dict[str, Program] = {}
        self._open: list[ExecRow] = []
        self._serial = 0

    def take(self, log: ExecLog, now: float) -> None:
        """Look at the rows that came since the last time; `now` is Unix seconds."""
        newest = self._serial
        for row in reversed(log.rows):
            if row.serial <= self._serial:
                break
            newest = max(newest, row.serial)
            self._open.append(row)
        self._serial = newest
        # What the log has forgotten changes no more.
        oldest = log.rows[0].serial if log.rows else 0
        still: list[ExecRow] = []
        for row in self._open:
            searching = row.failed and now - row.time < SEARCH_SECONDS
            final = row.failed or row.replaced or row.ended is not None
            if row.serial >= oldest and (searching or not final):
                still.append(row)
            else:
                self._count(row)
        self._open = still

    def _count(self, row: ExecRow) -> None:
        name = program_name(row)[:MOST_CHARACTERS]
        if name not in self._counts and len(self._counts) >= MOST_PROGRAMS:
            name = OTHERS
        self._counts.setdefault(name, Program()).add(row)

    def finish(self) -> dict[str, Program]:
        """All programs by name, those that run still among them; nothing is taken after it."""
        for row in self._open:
            self._count(row)
        self._open = []
        return self._counts
