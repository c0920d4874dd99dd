# SPDX-License-Identifier: Apache-2.0
"""One row per program: executions joined with the exits that end them.

The exec probe sends both as events of their own, in the order of time. A row is made by an
execution (or a failed attempt at one) and completed by its process's exit; the process that
executes another program begins a new row and the old one says so. A process is known by its pid
and its start: what the next process with that pid does is none of the old one's.

execvp(3) tries a program in every directory of PATH, so one start of "sh" is some failed
attempts and then a success, all by one process with the same arguments. Such a search is one
row, which the success turns into the program's.
"""

from __future__ import annotations

import errno
import shlex
import signal
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from sys import getsizeof

from probes.core.cgroup_names import CgroupName, describe, short
from probes.core.syscall_names import errno_name
from probes.execs.sample import ExecEvent, ExitEvent

MAX_ROWS = 10_000
MOST_BYTES = 128 << 20
"""Bytes of memory that the texts of all rows may take; those of 20,000 usual rows take 30 MB."""
MAX_SEARCHES = 4096
"""Most searches that are kept open at a time; the oldest is taken to have failed."""
SEARCH_SECONDS = 1.0
"""How long a search is open: who tries the same for longer than this has failed each second."""
_ABSENT = frozenset({-errno.ENOENT, -errno.ENOTDIR})
"""What says no more than that the program is not in this directory."""


@dataclass(slots=True, eq=False)
class ExecRow:
    """A program from its start to its end; what is not known is None.

    `time` and `ended` are Unix seconds, `duration` nanoseconds. `ret` is minus the errno of
    a failed attempt. `replaced` says that the process went on as another program. Of an end that
    was lost `ended` alone is known: when another process was seen with the same pid.
    `serial` numbers rows in the order in which they came. `path` is the file as execve was
    given it, `tries` how many attempts failed: all of a row that failed, those before the
    program was found of one that runs. `size` is bytes of memory that its texts take.
    """

    serial: int
    time: float
    pid: int
    comm: str
    uid: int | None = None
    ppid: int | None = None
    parent: str | None = None
    args: tuple[str, ...] | None = None
    truncated: bool = False
    ret: int = 0
    cgroup: str | None = None
    duration: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    replaced: bool = False
    ended: float | None = None
    path: str | None = None
    tries: int = 0
    started: int | None = None
    euid: int | None = None
    path_truncated: bool = False
    size: int = 0

    @property
    def command(self) -> str:
        """The whole argument vector as a shell would take it; the comm where it is unknown."""
        return join_args(self.args) if self.args else f"[{self.comm}]"

    @property
    def failed(self) -> bool:
        """Whether this is an attempt that did not become a program."""
        return self.ret < 0

    def outcome(self) -> str:
        """How it ended: "0", "1", "SIGKILL", "ENOENT", "exec"; "-" while it runs."""
        if self.failed:
            return errno_name(-self.ret)
        if self.replaced:
            return "exec"
        if self.signal:
            return signal_name(self.signal)
        return "-" if self.exit_code is None else str(self.exit_code)


@dataclass(slots=True, eq=False)
class _Search:
    """A process's attempts so far: their row, and the Unix time of the first."""

    row: ExecRow
    since: float


class ExecLog:
    """The newest MAX_ROWS rows, oldest first in `rows`; fewer where their texts are too large.

    `failed` counts the rows that failed for good: their process ended or did something else,
    or SEARCH_SECONDS have passed.
    """

    def __init__(self, limit: int = MAX_ROWS) -> None:
        self.rows: deque[ExecRow] = deque()
        self.failed = 0
        self._limit = limit
        self._size = 0
        self._running: OrderedDict[int, ExecRow] = OrderedDict()
        self._searches: OrderedDict[int, _Search] = OrderedDict()
        self._serial = 0

    def add(self, events: Iterable[ExecEvent | ExitEvent], now: float | None = None) -> None:
        """Take in events, in the order of time; `now`, in Unix seconds, closes old searches."""
        for event in events:
            if isinstance(event, ExitEvent):
                self._exited(event)
            elif event.ret < 0:
                self._attempted(event)
            else:
                self._executed(event)
        if now is not None:
            self._close_before(now - SEARCH_SECONDS)

    def clear(self) -> None:
        """Forget everything."""
        self.rows.clear()
        self.failed = self._size = 0
        self._running.clear()
        self._searches.clear()

    def _append(self, row: ExecRow) -> None:
        self.rows.append(row)
        self._weigh(row)
        while len(self.rows) > self._limit or (self._size > MOST_BYTES and len(self.rows) > 1):
            old = self.rows.popleft()
            self._size -= old.size
            if self._running.get(old.pid) is old:
                del self._running[old.pid]
            search = self._searches.get(old.pid)
            if search is not None and search.row is old:
                self._close(old.pid)

    def _weigh(self, row: ExecRow) -> None:
        """Count the texts of a row that is new, or has others now."""
        before, row.size = row.size, _size(row)
        self._size += row.size - before

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _attempted(self, event: ExecEvent) -> None:
        search = self._searches.get(event.pid)
        if search is not None and _tries_again(search, event):
            row = search.row
            row.tries += 1
            # What execvp reports in the end: that a file may not be run, if one was there.
            if event.ret not in _ABSENT or row.ret in _ABSENT:
                row.path, row.ret = event.path, event.ret
            return
        self._close(event.pid)
        row = _row(self._next(), event)
        row.tries = 1
        self._append(row)
        self._searches[event.pid] = _Search(row, event.time)
        if len(self._searches) > MAX_SEARCHES:
            self._close(next(iter(self._searches)))

    def _executed(self, event: ExecEvent) -> None:
        search = self._searches.get(event.pid)
        found = search is not None and _finds(search, event)
        if search is not None and found:
            del self._searches[event.pid]
            row = search.row
            _describe(row, event)
            self._weigh(row)
        else:
            self._close(event.pid)
            row = _row(self._next(), event)
        before = self._running.pop(event.pid, None)
        if before is not None and not _same(before, event):
            before.ended = event.time
        elif before is not None:
            before.replaced = True
            before.ended = event.time
            before.duration = max(0, round((event.time - before.time) * 1e9))
        self._running[event.pid] = row
        if not found:
            self._append(row)

    def _close(self, pid: int) -> None:
        """The search of a process, if there is one, has failed."""
        if self._searches.pop(pid, None) is not None:
            self.failed += 1

    def _close_before(self, time: float) -> None:
        while self._searches:
            pid, search = next(iter(self._searches.items()))
            if search.since > time:
                return
            self._close(pid)

    def _exited(self, event: ExitEvent) -> None:
        self._close(event.pid)
        row = self._running.pop(event.pid, None)
        if row is not None and not _same(row, event):
            row.ended, row = event.time, None
        if row is None:
            if not event.signal:
                return
            # A process that was there before the probe is news only if it was killed.
            row = ExecRow(self._next(), event.time, event.pid, event.comm, started=event.started)
            self._append(row)
        row.ended = event.time
        row.duration = event.duration
        row.exit_code = event.exit_code
        row.signal = event.signal


def _row(serial: int, event: ExecEvent) -> ExecRow:
    row = ExecRow(serial, event.time, event.pid, event.comm)
    _describe(row, event)
    return row


def _size(row: ExecRow) -> int:
    texts = (row.comm, row.parent, row.cgroup, row.path, *(row.args or ()))
    return sum(map(getsizeof, texts))


def _describe(row: ExecRow, event: ExecEvent) -> None:
    row.time, row.comm, row.path = event.time, event.comm, event.path
    row.uid, row.ppid, row.parent = event.uid, event.ppid, event.parent
    row.args, row.truncated, row.ret = event.args, event.truncated, event.ret
    row.cgroup, row.started = event.cgroup, event.started
    row.euid, row.path_truncated = event.euid, event.path_truncated


def _same(row: ExecRow, event: ExecEvent | ExitEvent) -> bool:
    """Whether an event with the pid of a row is of the row's process; so it is if unknown."""
    return None in (row.started, event.started) or row.started == event.started


def _tries_again(search: _Search, event: ExecEvent) -> bool:
    """Whether an attempt goes on with a search."""
    row = search.row
    return _open(search, event) and row.args == event.args and _same(row, event)


def _open(search: _Search, event: ExecEvent) -> bool:
    return event.time - search.since < SEARCH_SECONDS


def _finds(search: _Search, event: ExecEvent) -> bool:
    """Whether an execution is what the process was searching for.

    The kernel side keeps less of a failed attempt's arguments than of a program's, and a
    script's program is its interpreter, with the script's path in place of its first argument.
    """
    row = search.row
    if not (_open(search, event) and _same(row, event)) or _base(event.path) != _base(row.path):
        return False
    tried, args = row.args, event.args
    if tried is None or args is None:
        return row.path is not None
    if tried == args:
        return True
    if event.path in args and len(args) > len(tried):
        return row.truncated or args[len(args) - len(tried) + 1 :] == tried[1:]
    kept = tried[:-1]
    return row.truncated and len(args) >= len(tried) and args[: len(kept)] == kept


def _base(path: str | None) -> str | None:
    return None if path is None else path.rpartition("/")[2]


def join_args(args: Iterable[str]) -> str:
    """Arguments quoted as for a shell, so that where each begins and ends can be seen."""
    return " ".join([_quote(arg) for arg in args])


def _quote(arg: str) -> str:
    """As shlex.quote, but an apostrophe alone is put in double quotes, which people can read."""
    if "'" in arg and not any(char in '"$`\\!' for char in arg):
        return f'"{arg}"'
    return shlex.quote(arg)


@lru_cache(maxsize=128)
def signal_name(number: int) -> str:
    """ "SIGKILL" for 9; a real-time or unknown signal by its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


NO_NAMES: Mapping[str, CgroupName] = {}


def short_cgroup(path: str | None) -> str:
    """What a person calls a control group: container id, pod or unit; "-" if unknown.

    "/system.slice/docker-<64 hex>.scope" gives "docker:0123456789ab",
    "/kubepods.slice/.../kubepods-pod<uid>.slice" "pod:<8 of uid>",
    "/system.slice/nginx.service" "nginx", the root "/".
    """
    return group_of(path, NO_NAMES)


def group_of(path: str | None, names: Mapping[str, CgroupName]) -> str:
    """As `short_cgroup`, with what container runtimes told, by path."""
    return "-" if path is None else short(names.get(path) or describe(path))
