# SPDX-License-Identifier: Apache-2.0
"""One row per program: executions joined with the exits that end them.

The exec probe sends both as events of their own, in the order of time. A row is made by an
execution (or a failed attempt at one) and completed by its process's exit; the process that
executes another program begins a new row and the old one says so.
"""

from __future__ import annotations

import errno
import shlex
import signal
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from probes.samples import ExecEvent, ExitEvent

MAX_ROWS = 10_000


@dataclass(slots=True, eq=False)
class ExecRow:
    """A program from its start to its end; what is not known is None.

    `time` and `ended` are Unix seconds, `duration` nanoseconds. `ret` is minus the errno of
    a failed attempt. `replaced` says that the process went on as another program.
    `serial` numbers rows in the order in which they came.
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


class ExecLog:
    """The newest MAX_ROWS rows, oldest first in `rows`."""

    def __init__(self, limit: int = MAX_ROWS) -> None:
        self.rows: deque[ExecRow] = deque()
        self._limit = limit
        self._running: OrderedDict[int, ExecRow] = OrderedDict()
        self._serial = 0

    def add(self, events: Iterable[ExecEvent | ExitEvent]) -> None:
        """Take in events, in the order of time."""
        for event in events:
            if isinstance(event, ExecEvent):
                self._executed(event)
            else:
                self._exited(event)

    def clear(self) -> None:
        """Forget everything."""
        self.rows.clear()
        self._running.clear()

    def _append(self, row: ExecRow) -> None:
        self.rows.append(row)
        if len(self.rows) > self._limit:
            old = self.rows.popleft()
            if self._running.get(old.pid) is old:
                del self._running[old.pid]

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _executed(self, event: ExecEvent) -> None:
        row = ExecRow(
            serial=self._next(),
            time=event.time,
            pid=event.pid,
            comm=event.comm,
            uid=event.uid,
            ppid=event.ppid,
            parent=event.parent,
            args=event.args,
            truncated=event.truncated,
            ret=event.ret,
            cgroup=event.cgroup,
        )
        if not row.failed:
            before = self._running.pop(event.pid, None)
            if before is not None:
                before.replaced = True
                before.ended = event.time
                before.duration = max(0, round((event.time - before.time) * 1e9))
            self._running[event.pid] = row
        self._append(row)

    def _exited(self, event: ExitEvent) -> None:
        row = self._running.pop(event.pid, None)
        if row is None:
            if not event.signal:
                return
            # A process that was there before the probe is news only if it was killed.
            row = ExecRow(self._next(), event.time, event.pid, event.comm)
            self._append(row)
        row.ended = event.time
        row.duration = event.duration
        row.exit_code = event.exit_code
        row.signal = event.signal


def join_args(args: Iterable[str]) -> str:
    """Arguments quoted as for a shell, so that where each begins and ends can be seen."""
    return " ".join([_quote(arg) for arg in args])


def _quote(arg: str) -> str:
    """As shlex.quote, but an apostrophe alone is put in double quotes, which people can read."""
    if "'" in arg and not any(char in '"$`\\!' for char in arg):
        return f'"{arg}"'
    return shlex.quote(arg)


@lru_cache(maxsize=256)
def errno_name(number: int) -> str:
    """ "ENOENT" for 2; an unknown number as such."""
    return errno.errorcode.get(number, f"errno {number}")


@lru_cache(maxsize=128)
def signal_name(number: int) -> str:
    """ "SIGKILL" for 9; a real-time or unknown signal by its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_UNITS = (".service", ".scope", ".slice", ".mount", ".socket")
_RUNTIMES = ("docker", "cri-containerd", "crio", "libpod", "containerd", "lxc", "nerdctl")


def _is_id(text: str) -> bool:
    return len(text) in (32, 64) and all(c in "0123456789abcdef" for c in text)


@lru_cache(maxsize=4096)
def short_cgroup(path: str | None) -> str:
    """What a person calls a control group: container id, pod or unit; "-" if unknown.

    "/system.slice/docker-<64 hex>.scope" gives "docker:0123456789ab",
    "/kubepods.slice/.../kubepods-pod<uid>.slice" "pod:<8 of uid>",
    "/system.slice/nginx.service" "nginx", the root "/".
    """
    if path is None:
        return "-"
    parts = [part for part in path.split("/") if part]
    if not parts:
        return "/"
    kube = any(part.startswith("kubepods") for part in parts)
    for at in range(len(parts) - 1, -1, -1):
        base = _without_unit(parts[at])
        runtime, _, tail = base.rpartition("-")
        if _is_id(tail):
            parent = _without_unit(parts[at - 1]) if at else ""
            name = _runtime(runtime or parent, kube)
            return f"{name}:{tail[:12]}"
        if (base.startswith("kubepods-") and "pod" in base) or (kube and base.startswith("pod")):
            uid = base.rpartition("pod")[2].replace("_", "-")
            if uid:
                return f"pod:{uid[:8]}"
    for part in reversed(parts):
        if part.endswith(".service"):
            return _without_unit(part)
    return _without_unit(parts[-1])


def _runtime(name: str, kube: bool) -> str:
    if kube:
        return "pod"
    for runtime in _RUNTIMES:
        if name.startswith(runtime):
            return {"cri-containerd": "cri", "libpod": "podman"}.get(runtime, runtime)
    return "ct"


def _without_unit(part: str) -> str:
    for suffix in _UNITS:
        if part.endswith(suffix):
            return part[: -len(suffix)]
    return part
