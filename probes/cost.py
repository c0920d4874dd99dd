# SPDX-License-Identifier: Apache-2.0
"""What a probe costs, by the kernel's own run-time statistics of its programs.

The kernel measures only while somebody holds BPF_ENABLE_STATS's descriptor (and that adds
20 to 50 ns an event), so a Meter measures in windows: `begin` and `end` bracket one. Between
windows the CPU share follows the present rate of events. The kernel's figures leave out what it
takes to call a program; that is measured where it is loaded (`outside`) and added here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from probes import ipc
from probes.base import Loaded, Probe
from probes.bpfsys import fdinfo
from probes.maps import memory_of
from probes.samples import Cost

UNMEASURED = 60.0
"""ns that an event's programs are taken to need before that is known."""


@dataclass(frozen=True, slots=True)
class _Reading:
    runs: int
    nanoseconds: int
    events: int
    now: float


class Meter:
    """Holds a probe's links and program descriptors and reads their statistics.

    `events` is set by the probe: the cumulative number of events that it counted. So is
    `outside`, the ns that an event takes beside its programs, and `outdated`: what was loaded
    fits this machine no longer (CPUs came or went), and is to be loaded anew; `usual_runs`, how
    many runs of programs an event takes; `per_call`, the ns that each system call of the machine
    pays for what is attached, of which its owner knows how many there are a second (`calls`).
    Where it is `filtered`, programs run for events that nobody counts. `dispose` closes
    links and programs: detaching waits for the kernel, which its owner may let somebody else do.
    """

    def __init__(self) -> None:
        self.events = 0
        self.outside = self.per_call = 0.0
        self.usual_runs = 1.0
        self.calls: float | None = None
        self.filtered = False
        self.outdated = False
        self.notes: tuple[str, ...] = ()
        self.dispose: Callable[[Sequence[int]], None] = ipc.close_all
        self._links: list[int] = []
        self._programs: dict[str, int] = {}
        self._map_bytes: int | None = None
        self._window: _Reading | None = None
        self._load: float | None = None
        self._rate = 0.0
        self._ns_per_run: float | None = None
        self._runs_per_event = 1.0
        self._runs: float | None = None
        self._ns_per_event = UNMEASURED
        self._last: tuple[float, int] | None = None
        self._estimated: tuple[float, int] | None = None

    def adopt(self, loaded: Loaded, mapped: Iterable[int | None]) -> None:
        """Take over descriptors, beside those already there.

        `mapped` are the sizes of the maps already taken.
        """
        self._links += loaded.links
        for name, fd in loaded.programs.items():
            self._programs[f"{name}.{fd}" if name in self._programs else name] = fd
        self.notes = loaded.notes
        sizes = [*mapped, *(memory_of(fd) for fd in loaded.maps.values())]
        if any(sizes):
            self._map_bytes = (self._map_bytes or 0) + sum(s for s in sizes if s)
        # What is still open of the maps was handed over for its size only.
        loaded.links, loaded.programs = [], {}
        loaded.close()

    def forget(self, programs: Iterable[int], mapped: Iterable[int | None]) -> None:
        """Close some of the programs, with the sizes of the maps that end with them."""
        gone = set(programs)
        self.dispose(list(gone))
        self._programs = {name: fd for name, fd in self._programs.items() if fd not in gone}
        if self._map_bytes is not None:
            self._map_bytes -= sum(size for size in mapped if size)

    def drop(self, links: Sequence[int]) -> None:
        """Close some of the links: what they attached is detached."""
        gone = set(links)
        self._links = [fd for fd in self._links if fd not in gone]
        self.dispose(list(links))

    def release(self) -> None:
        """Close links and programs: the kernel forgets them. Figures are unknown then."""
        self.dispose([*self._links, *self._programs.values()])
        self._links, self._programs = [], {}
        self._map_bytes = self._window = self._load = self._ns_per_run = self._last = None
        self._estimated = self._runs = None

    def missed(self) -> int:
        """Events that the kernel did not deliver, for the program was just running."""
        return sum(int(fdinfo(fd).get("recursion_misses", 0)) for fd in self._programs.values())

    def begin(self, now: float) -> None:
        """Statistics are on from now on."""
        self._window = self._read(now)

    def end(self, now: float) -> None:
        """Statistics go off; keep what the window showed."""
        start, self._window = self._window, None
        if start is None or now <= start.now:
            return
        stop = self._read(now)
        runs, spent = stop.runs - start.runs, stop.nanoseconds - start.nanoseconds
        seconds = now - start.now
        events = stop.events - start.events
        self._load = spent / seconds / 1e9
        self._rate, self._runs = events / seconds, runs / seconds
        self._ns_per_run = spent / runs if runs else self._ns_per_run
        if events > 0:
            self._runs_per_event, self._ns_per_event = runs / events, spent / events

    def cost(self, now: float) -> Cost:
        """The cost at the present rate of events; None where it was not measured yet."""
        percent = self._whole()
        rate = self._rate
        if not self.filtered and self._last is not None and percent is not None:
            if now > self._last[0]:
                rate = (self.events - self._last[1]) / (now - self._last[0])
            if self._rate > 0:
                percent *= rate / self._rate
        self._last = (now, self.events)
        if percent is not None and self.calls is not None:
            percent += self.per_call * self.calls / 1e7
        each = self._ns_per_run
        if each is not None and self._runs_per_event > 0:
            each += self.outside / self.usual_runs
        return Cost(self.events, each, percent, self._map_bytes)

    def hits(self) -> float | None:
        """Events a second in the last window, with those that did not pass the filters."""
        return None if self._runs is None else self._runs / self.usual_runs

    def _whole(self) -> float | None:
        """Per cent of one CPU in the last window, with what it took to call the programs."""
        hits = self.hits()
        if self._load is None or hits is None:
            return None
        return 100 * self._load + self.outside * hits / 1e7

    def estimate(self, now: float) -> float:
        """Per cent of one CPU since the last call, a guess where nothing was measured yet.

        Where it is filtered, that of the last window: the events say nothing of the others.
        """
        last, self._estimated = self._estimated, (now, self.events)
        if self.filtered:
            return self._whole() or 0.0
        if last is None or now <= last[0]:
            return 0.0
        rate = max(0, self.events - last[1]) / (now - last[0])
        return rate * (self._ns_per_event + self.outside) / 1e7

    def expect(self, factor: float) -> None:
        """From now on an event will cost so many times what it did, until that is measured."""
        self._ns_per_event *= factor

    def _read(self, now: float) -> _Reading:
        runs = nanoseconds = 0
        for fd in self._programs.values():
            info = fdinfo(fd)
            runs += int(info.get("run_cnt", 0))
            nanoseconds += int(info.get("run_time_ns", 0))
        return _Reading(runs, nanoseconds, self.events, now)


class CostWindows:
    """When run-time statistics are on: WINDOW seconds in EVERY, or always.

    The owner asks the broker when `due` says so, notes the `request`, and hands what comes
    to `open`; closing the descriptor ends the window.
    """

    EVERY = 10.0
    WINDOW = 1.0

    def __init__(self, always: bool) -> None:
        self.request: int | None = None
        self._always = always
        self._fd: int | None = None
        self._next = 0.0

    def due(self, running: Sequence[Probe], now: float) -> bool:
        """End a window that is over; True if the next one should be asked for."""
        if self._fd is None:
            return bool(running) and self.request is None and now >= self._next
        if now < self._next:
            return False
        for probe in running:
            probe.drain()  # events and runs have to be of the same moment
            probe.meter.end(now)
            if self._always:
                probe.meter.begin(now)
        self._next = now + self.WINDOW
        if not self._always:
            self.close()
            self._next = now + self.EVERY - self.WINDOW
        return False

    def open(self, fd: int | None, running: Sequence[Probe], now: float) -> None:
        """The descriptor has come (None: refused, so ask again later)."""
        self.request, self._fd = None, fd
        self._next = now + (self.EVERY if fd is None else self.WINDOW)
        if fd is not None:
            for probe in running:
                probe.drain()
                probe.meter.begin(now)

    def begin_soon(self, probe: Probe, now: float) -> None:
        """Measure a probe that has just begun, in a window of full length."""
        self._next = now
        if self._fd is not None:
            probe.meter.begin(now)
            self._next = now + self.WINDOW

    def close(self) -> None:
        """Statistics off, as far as we are concerned."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class CallRate:
    """System calls a second of the whole machine, as long as their probe runs."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        self._rate: float | None = None

    def of(self, meter: Meter | None, now: float) -> float | None:
        """Since the call before, by the probe's meter; without one, as it was at last."""
        if meter is None:
            self._last = None
            return self._rate
        last, self._last = self._last, (now, meter.events)
        if meter.filtered:
            hits = meter.hits()
            self._rate = self._rate if hits is None else hits
        elif last is not None and now > last[0]:
            self._rate = max(0, meter.events - last[1]) / (now - last[0])
        return self._rate

    def tell(self, meters: Iterable[Meter], counting: Meter | None, now: float) -> None:
        """Tell meters how many calls there are, None while nobody is `counting`."""
        rate = self.of(counting, now)
        for meter in meters:
            meter.calls = None if counting is None else rate
