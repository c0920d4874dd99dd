# SPDX-License-Identifier: Apache-2.0
"""Readings of counters by process and event, kept by process.

What a process's counters gained comes at once, for all events. In one flat mapping each would
be looked up, and copied into each Sample, by itself: six of them for each of 16,384 processes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from probes.core.limits import Total

Key = tuple[int, str]


class Reading(NamedTuple):
    """Cumulative count of one perf event as the counters gave it, never scaled.

    `enabled` is for how many nanoseconds the event was wanted, `running` for how many a
    counter really counted it: less where the kernel shares counters among events.
    """

    value: Total
    enabled: Total
    running: Total


Row = tuple[Reading | None, ...]
Rows = Mapping[int, Row]
ByEvent = Mapping[str, Reading | None]


class Readings(Mapping[Key, Reading]):
    """A mapping of (process id or CPU, event) to Reading; `rows` has those of one by `events`.

    None stands for an event of which a process has no Reading. A row is never changed, but
    replaced.
    """

    __slots__ = ("_at", "events", "rows")

    def __init__(self, events: Iterable[str] = (), rows: Rows | None = None) -> None:
        self.events = tuple(events)
        self.rows: Rows = {} if rows is None else rows
        self._at = {event: at for at, event in enumerate(self.events)}

    def of_events(self, events: Iterable[str]) -> Readings:
        """The Readings of these events only."""
        wanted = tuple(events)
        if wanted == self.events:
            return self
        places = [self._at.get(event) for event in wanted]
        rows = {
            pid: tuple([None if at is None else row[at] for at in places])
            for pid, row in self.rows.items()
        }
        return Readings(wanted, {pid: row for pid, row in rows.items() if any(row)})

    def of_processes(self, pids: Container[int]) -> Readings:
        """The Readings of these processes or CPUs only."""
        return Readings(self.events, {pid: row for pid, row in self.rows.items() if pid in pids})

    def get(self, key: Any, default: Any = None) -> Any:
        """The Reading, or the default."""
        row, at = self.rows.get(key[0]), self._at.get(key[1])
        found = None if row is None or at is None else row[at]
        return default if found is None else found

    def __getitem__(self, key: Key) -> Reading:
        found: Reading | None = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None

    def __iter__(self) -> Iterator[Key]:
        for pid, row in self.rows.items():
            for event, reading in zip(self.events, row, strict=True):
                if reading is not None:
                    yield pid, event

    def __len__(self) -> int:
        return sum([len(row) - row.count(None) for row in self.rows.values()])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Readings) and self.events == other.events:
            return self.rows == other.rows
        return isinstance(other, Mapping) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Readings({dict(self)!r})"


def row_by_event(readings: Mapping[Key, Reading], owner: int, events: Sequence[str]) -> ByEvent:
    """The Readings of a process or a CPU, those of `events` at least that it has."""
    if isinstance(readings, Readings):
        row = readings.rows.get(owner)
        return {} if row is None else dict(zip(readings.events, row, strict=True))
    return {event: readings.get((owner, event)) for event in events}
