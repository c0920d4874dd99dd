# SPDX-License-Identifier: Apache-2.0
"""Attaches in bursts what takes the kernel long to attach and to detach: uprobes and their like.

As `probes.broker.burst_timer`, but the broker waits for nothing: to change the memory of the
processes that run a file takes the kernel about ten milliseconds, and to forget a uprobe a hundred.
A child process makes each burst. It attaches, opens the gate, waits, closes the gate and detaches.
It has all descriptors by itself, so that they are closed however it ends. When it has ended, the
burst is reported with the time that all of it took on a CPU. All children together are paced, as
others of the broker's are: bursts come later where they take too much. A burst that could not be
made, for whatever reason may have gone at the next, is left out and counted: the next one stands
for its period too.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import signal
import struct
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import SystemRandom

from probes.bpf.maps import put_word
from probes.broker.burst_timer import Urgent
from probes.broker.units import Bound, Units
from probes.core.errors import ProbeError
from probes.ipc import packets
from probes.ipc.child_process import PR_SET_PDEATHSIG, close_others
from probes.ipc.cpu_pace import Pace
from probes.ipc.messages import Burst, BurstReport, Taken

MOST_SCHEDULES, AT_ONCE = 64, 4
"""Targets that are attached in bursts, and bursts at the same time."""
MOST_LINKS = 64
"""Links of one target that are made by one burst."""
LEAST_PERIOD = 500
"""Milliseconds from one burst to the next at least."""
MOST_SKIPPED = 10
"""Bursts that may be left out one after the other until it is said to have failed."""
LAST = 20.0
"""Seconds after which a child that has not ended is killed, beyond the burst itself."""
CLOSERS = 16
"""Threads that close descriptors: each of perf's waits for a tenth of a second."""
_TOLD = struct.Struct("=qqqq")
_random = SystemRandom()
_Key = tuple[int, int]


@dataclass(slots=True)
class _Schedule:
    """One group that is attached in bursts; times in monotonic ns, as in
    `probes.broker.burst_timer`.

    `pid` is of the child that makes a burst now, `source` our end of its pipe. `skipped` bursts
    were left out since the last report.
    """

    bound: Bound
    on: int
    period: int
    since: int
    at: int
    number: int = 0
    skipped: int = 0
    waits: bool = True
    pid: int = 0
    source: int = -1
    begun: int = 0


class LongBursts:
    """All targets that are attached in bursts. `send` is given the reports."""

    def __init__(self, units: Units, send: Callable[[BurstReport], object]) -> None:
        self._units = units
        self._send = send
        self._schedules: dict[_Key, _Schedule] = {}
        self._ending: set[int] = set()
        self._pace = Pace()

    def ask(self, wish: Burst) -> bool:
        """Attach a group in bursts from now on, or in other ones; False if it is not for us."""
        if wish.group is None:
            return False
        key = (wish.unit, wish.group)
        known = self._schedules.get(key)
        bound = known.bound if known is not None else self._units.bound(*key)
        if bound is None and self._units.has_long(*key) is False:
            return False
        if not wish.on:
            return True  # who wants it attached for good loads it anew
        if bound is None or not self._fits(bound, known):
            self._send(BurstReport(*key, 0, "failed"))
            return True
        on, period = min(wish.on, wish.period), max(wish.period, LEAST_PERIOD)
        if known is not None:
            known.on, known.period = on * 1_000_000, period * 1_000_000
            return True
        now = time.monotonic_ns()
        put_word(bound.gate, 0, 0)
        self._units.pause_all(*key)
        self._schedules[key] = one = _Schedule(bound, on * 1_000_000, period * 1_000_000, now, 0)
        one.at = self._drawn(one)
        self._send(BurstReport(*key, 0, "paused", end=now))
        return True

    def _fits(self, bound: Bound, known: _Schedule | None) -> bool:
        many = [
            len(one.places) if one.kind in ("uprobe", "uretprobe") else 1 for one in bound.recipes
        ]
        free = known is not None or len(self._schedules) < MOST_SCHEDULES
        return free and 0 < sum(many) <= MOST_LINKS

    def taken(self, answer: Taken) -> None:
        """The report of this number is taken in."""
        one = self._schedules.get((answer.unit, answer.group if answer.group is not None else -1))
        if one is not None and answer.number == one.number:
            one.waits = False

    def forget(self, unit: int, groups: Collection[int] | None) -> None:
        """These are detached for good."""
        for key in list(self._schedules):
            if key[0] == unit and (groups is None or key[1] in groups):
                self._kill(self._schedules.pop(key))

    @property
    def sources(self) -> list[int]:
        """Descriptors that become readable when a burst is over."""
        return [one.source for one in self._schedules.values() if one.source >= 0]

    def timeout(self) -> float | None:
        """Seconds until something is to be done, None for nothing."""
        now, delay = time.monotonic_ns(), int(self._pace.delay() * 1e9)
        due = [
            max(delay, one.at - now) if not one.pid else one.begun + one.on + int(LAST * 1e9) - now
            for one in self._schedules.values()
            if one.pid or (not one.waits and self._running < AT_ONCE)
        ]
        return max(0.0, min(due) / 1e9) if due else None

    def run(self, ready: Collection[int] = ()) -> None:
        """Begin what is due, and report what is over."""
        now = time.monotonic_ns()
        for key, one in list(self._schedules.items()):
            if one.pid and (one.source in ready or now - one.begun > one.on + LAST * 1e9):
                self._end(key, one)
            elif not one.pid and not one.waits and now >= one.at and self._may_begin():
                self._begin(key, one)
        for pid in list(self._ending):
            self._reap(pid, os.WNOHANG)

    def close(self) -> None:
        """End all children."""
        for one in self._schedules.values():
            self._kill(one)
        self._schedules = {}

    def _may_begin(self) -> bool:
        return self._running < AT_ONCE and not self._pace.delay()

    @property
    def _running(self) -> int:
        return len([1 for one in self._schedules.values() if one.pid])

    def _drawn(self, one: _Schedule) -> int:
        """When the burst of the period begins that `since` opens."""
        return one.since + int(_random.random() * max(0, one.period - one.on))

    def _begin(self, key: _Key, one: _Schedule) -> None:
        # The child needs it, and is forked for each burst: it is read once, here.
        from probes.bpf import attach_again  # noqa: F401

        one.begun = time.monotonic_ns()
        pipe: tuple[int, ...] = ()
        try:
            one.source, writing = pipe = os.pipe2(os.O_CLOEXEC)
            one.pid = os.fork()
        except OSError:
            packets.close_all(pipe)
            one.source = -1
            self._skip(key, one, transient=True)
            return
        if one.pid == 0:
            _be_child(writing, one.bound, one.on)
        os.close(writing)

    def _end(self, key: _Key, one: _Schedule) -> None:
        """Report a burst whose child has ended, or is to."""
        told = os.read(one.source, _TOLD.size) if _readable(one.source) else b""
        os.close(one.source)
        with suppress(ProcessLookupError):
            if not told:
                os.kill(one.pid, signal.SIGKILL)
        self._ending.add(one.pid)
        # It has closed all it had: what remains of its end takes no time.
        spent = self._reap(one.pid, os.WNOHANG if not told else 0)
        one.pid, one.source = 0, -1
        put_word(one.bound.gate, 0, 0)
        if len(told) < _TOLD.size:
            self._skip(key, one, transient=True)
            return
        begin, end, edges, number = _TOLD.unpack(told)
        if number:
            self._skip(key, one, transient=number != errno.ESTALE)
            return
        one.number += 1
        one.waits = True
        since, one.since = one.since, max(end, one.since + one.period)
        one.at = self._drawn(one)
        skipped, one.skipped = one.skipped, 0
        times = (since, begin, max(end, begin), one.since, edges, int(spent * 1e9))
        self._send(BurstReport(*key, one.number, "burst", *times, skipped=skipped))

    def _reap(self, pid: int, options: int) -> float:
        """CPU seconds that a child and its own ones took, 0.0 until it has ended; charge them."""
        spent = 0.0
        with suppress(ChildProcessError):
            ended, _, used = os.wait4(pid, options)
            if not ended:
                return spent
            spent = used.ru_utime + used.ru_stime
            self._pace.charge(spent)
        self._ending.discard(pid)
        return spent

    def _skip(self, key: _Key, one: _Schedule, transient: bool) -> None:
        """Leave a burst out; what was tried too often has failed."""
        one.skipped += 1
        if transient and one.skipped <= MOST_SKIPPED:
            one.at = max(time.monotonic_ns(), one.at) + one.period
            return
        del self._schedules[key]
        self._send(BurstReport(*key, one.number + 1, "failed"))

    def _kill(self, one: _Schedule) -> None:
        if not one.pid:
            return
        with suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
        os.close(one.source)
        self._ending.add(one.pid)
        one.pid, one.source = 0, -1


def _readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def _be_child(writing: int, bound: Bound, on: int) -> None:
    """Make a burst of `on` ns, tell of it, and end. Never returns."""
    links: list[int] = []
    with suppress(BaseException):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        close_others({writing, *bound.programs, *bound.held})
        try:
            told = _burst(bound, on, links)
        finally:
            put_word(bound.gate, 0, 0)
            _close(links)
        os.write(writing, told)
    os._exit(0)


def _burst(bound: Bound, on: int, links: list[int]) -> bytes:
    from probes.bpf import attach_again

    try:
        attach_again.check(bound.recipes, bound.held)
        for recipe in bound.recipes:
            attach_again.attach(recipe, bound.programs, bound.held, links)
    except attach_again.ChangedError:
        return _TOLD.pack(0, 0, 0, errno.ESTALE)
    except ProbeError:
        return _TOLD.pack(0, 0, 0, errno.EBUSY)
    except OSError as error:
        return _TOLD.pack(0, 0, 0, error.errno or errno.EIO)
    with Urgent():
        begin, edges = _turn(bound.gate, True)
        left = begin + on - time.monotonic_ns()
        if left > 0:
            time.sleep(left / 1e9)
        end, more = _turn(bound.gate, False)
    return _TOLD.pack(begin, end, edges + more, 0)


def _turn(gate: mmap.mmap, on: bool) -> tuple[int, int]:
    """Let the programs count or not: when that was, and how uncertain it is.

    What began before the moment that the gate has is of an earlier burst.
    """
    before = time.monotonic_ns()
    put_word(gate, 0, before if on else 0)
    after = time.monotonic_ns()
    return (before + after) // 2, after - before


def _close(links: Sequence[int]) -> None:
    """Close descriptors at the same time, for each waits for the kernel; returns at the end."""
    if len(links) < 2:
        packets.close_all(links)
        return
    # What closes many is not imported for it: that would take longer than all of this.
    import _thread

    left = iter(list(links))
    done = []

    def close(left: Iterator[int], lock: object) -> None:
        for fd in left:
            with suppress(OSError):
                os.close(fd)
        lock.release()  # type: ignore[attr-defined]

    for _ in range(min(CLOSERS, len(links))):
        lock = _thread.allocate_lock()
        lock.acquire()
        done.append(lock)
        _thread.start_new_thread(close, (left, lock))
    for lock in done:
        lock.acquire()
