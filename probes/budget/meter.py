# SPDX-License-Identifier: Apache-2.0
"""What a probe costs, by the kernel's own run-time statistics of its programs.

The kernel measures only while it is asked to (and that adds 20 to 50 ns an event), so a Meter
measures in windows: `begin` and `end` bracket one. The broker, which holds the programs, reads
their statistics and sends them as numbers. Only what is attached at both ends of a window is
measured by it. Between windows the CPU share follows the present rate of events, by what a run of
a program takes, as long as the same programs are attached. The kernel's figures leave out what it
takes to call a program; that is measured where it is loaded (`outside`) and added here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from probes.bpf.plan import Loaded
from probes.core.sample import Cost
from probes.ipc.messages import BurstReport, RunStats

MEASURING = 35.0
"""ns that the kernel's statistics take of a run which they measure: 20 to 50."""
UNMEASURED = 60.0
"""ns that an event's programs are taken to need before that is known."""


NO_RUNS = RunStats()
AllRuns = Mapping[int, RunStats]
"""What the programs of each unit ran, as the broker tells it."""


class _Reading(NamedTuple):
    """What ran until `now`; `events` None where other programs counted them since then."""

    runs: dict[int, RunStats]
    events: int | None
    now: float


class _Share(NamedTuple):
    """What the programs of one unit took in a window: a part of one CPU, and runs a second."""

    load: float
    runs: float


class Meter:
    """What a probe's programs cost, by what the broker tells of the units that are its own.

    `events` is set by the probe: the cumulative number of events that it counted. So is
    `outside`, the ns that an event takes beside its programs, and `outdated`: what was loaded
    fits this machine no longer (CPUs came or went), and is to be loaded anew; `usual_runs`, how
    many runs of programs an event takes; `per_call`, the ns that each system call of the machine
    pays for what is attached, of which its owner knows how many there are a second (`calls`).
    Where it is `filtered`, programs run for events that nobody counts. `detach` has the broker
    detach a unit, or some groups of it, `attach_in` attach it in bursts (see
    `probes.ipc.messages.Burst`): then it counts for the part `duty` of the time, switching takes
    `switching` per cent of one CPU, and so many bursts were `skipped`.
    """

    def __init__(self) -> None:
        self.events = 0
        self.outside = self.per_call = 0.0
        self.usual_runs = self.duty = 1.0
        self.switching = 0.0
        self.skipped = 0
        self.calls: float | None = None
        self._filtered = False
        self.outdated = False
        self.notes: tuple[str, ...] = ()
        self.detach: Callable[[int, Sequence[int] | None], None] = lambda unit, groups: None
        self.attach_in: Callable[[int, int | None, int, int], None] = lambda *wish: None
        self._units: dict[int, int | None] = {}
        self._missed: dict[int, int] = {}
        self._missed_before = 0
        self._window: _Reading | None = None
        self._shares: dict[int, _Share] = {}
        # Events a second in the last window; None where other programs are attached since then.
        self._rate: float | None = None
        self._ns_per_run: float | None = None
        self._ns_per_event = UNMEASURED
        self._last: tuple[float, int] | None = None
        self._estimated: tuple[float, int] | None = None

    @property
    def filtered(self) -> bool:
        """Whether programs run for events that nobody counts."""
        return self._filtered

    @filtered.setter
    def filtered(self, value: bool) -> None:
        if value != self._filtered:
            self._filtered = value
            self._changed()

    def adopt(self, loaded: Loaded) -> None:
        """Count the cost of what was loaded, beside that of what there is already."""
        self._units[loaded.unit] = loaded.map_bytes
        self._shares.pop(loaded.unit, None)
        self._changed()
        self.notes = loaded.notes

    def burst(self, report: BurstReport) -> None:
        """Take in what a burst's switching took, and for which part of the time it counted."""
        self.duty, self.switching = 1.0, 0.0
        self.skipped += report.skipped
        if report.kind == "burst" and report.until > report.since:
            period = report.until - report.since
            self.duty = max(1e-6, (report.end - report.begin) / period)
            self.switching = 100 * report.cost / period

    def owns(self, unit: int) -> bool:
        """Whether a unit is among those that are measured here."""
        return unit in self._units

    def forget(self, unit: int) -> None:
        """Detach a unit; what it missed still counts."""
        if unit in self._units:
            del self._units[unit]
            self._shares.pop(unit, None)
            self._missed_before += self._missed.pop(unit, 0)
            self._changed()
            self.detach(unit, None)

    def drop(self, unit: int, groups: Sequence[int]) -> None:
        """Detach some groups of a unit."""
        self._changed()
        self.detach(unit, groups)

    def release(self) -> None:
        """Detach all units. Figures are unknown then."""
        for unit in list(self._units):
            self.forget(unit)
        self._window = self._ns_per_run = self._last = self._estimated = None

    def _changed(self) -> None:
        """Other programs count events from now on: two rates of events do not compare."""
        self._rate = None
        if self._window is not None:
            self._window = self._window._replace(events=None)

    def missed(self) -> int:
        """Events that the kernel did not deliver, for the program was just running."""
        return self._missed_before + sum(self._missed.values())

    def told(self, runs: AllRuns) -> None:
        """Take in what programs missed until now."""
        for unit in self._units:
            if unit in runs:
                self._missed[unit] = runs[unit].missed

    @property
    def measuring(self) -> bool:
        """Whether a window has begun."""
        return self._window is not None

    def begin(self, runs: AllRuns, now: float) -> None:
        """A window begins: the kernel measures from now on."""
        self._window = self._read(runs, now)

    def end(self, runs: AllRuns, now: float) -> None:
        """The window is over; keep what it showed."""
        start, self._window = self._window, None
        if start is None or now <= start.now:
            return
        stop = self._read(runs, now)
        seconds = now - start.now
        gained = {
            unit: _gained(start.runs[unit], end)
            for unit, end in stop.runs.items()
            if unit in start.runs
        }
        self._shares = {
            unit: _Share(one.nanoseconds / seconds / 1e9, one.count / seconds)
            for unit, one in gained.items()
        }
        count = sum(one.count for one in gained.values())
        spent = sum(one.nanoseconds for one in gained.values())
        self._ns_per_run = spent / count if count else self._ns_per_run
        self._rate = None
        if start.events is None or stop.events is None or stop.events < start.events:
            return
        events = stop.events - start.events
        self._rate = events / seconds
        if count and events:
            # Runs that count nothing, for calls of others, do not grow with the events.
            self._ns_per_event = spent / max(events, count / self.usual_runs)

    def cost(self, now: float) -> Cost:
        """The cost at the present rate of events; None where it was not measured yet."""
        last, self._last = self._last, (now, self.events)
        rate = self._rate if last is None else _rate(last, (now, self.events), self._rate)
        percent = self._whole() if self.filtered else self._at(rate)
        if percent is not None and self.calls is not None:
            percent += self.per_call * self.calls / 1e7
        percent = None if percent is None else percent + self.switching
        each = self._ns_per_run
        if each is not None:
            each += self.outside / self.usual_runs
        return Cost(self.events, each, percent, self._map_bytes())

    def hits(self) -> float | None:
        """Events a second in the last window, with those that did not pass the filters.

        None where programs are attached that no window has measured.
        """
        if not self._units or self._shares.keys() != self._units.keys():
            return None
        return sum([share.runs for share in self._shares.values()]) / self.usual_runs

    def ns_of_run(self) -> float:
        """What one run of a program takes, in ns, without what it takes to measure that."""
        if self._ns_per_run is None:
            return UNMEASURED
        return max(0.0, self._ns_per_run - MEASURING)

    def _whole(self) -> float | None:
        """Per cent of one CPU in the last window, with what it took to call the programs."""
        hits = self.hits()
        if hits is None:
            return None
        load = sum([share.load for share in self._shares.values()])
        return 100 * load + self.outside * hits / 1e7

    def _at(self, rate: float | None) -> float | None:
        """As `_whole`, at another rate of events; the same where none is known."""
        whole, hits = self._whole(), self.hits()
        if whole is None or hits is None or self._rate is None or rate is None:
            return whole
        # Of an event only its own runs come and go with it, though many more may happen beside.
        part = min(1.0, hits / self._rate) if self._rate else 1.0
        each = ((self._ns_per_run or 0.0) * self.usual_runs + self.outside) * part
        return max(0.0, whole + (rate - self._rate) * each / 1e7)

    def estimate(self, now: float) -> float:
        """Per cent of one CPU since the last call, a guess where nothing was measured yet.

        Where it is filtered, that of the last window: the events say nothing of the others.
        """
        return self._estimate(now) + self.switching

    def _estimate(self, now: float) -> float:
        last, self._estimated = self._estimated, (now, self.events)
        if self.filtered:
            return self._whole() or 0.0
        rate = None if last is None else _rate(last, (now, self.events), None)
        if rate is None:
            return 0.0
        if self._rate is not None:
            found = self._at(rate)
            if found is not None:
                return found
        return rate * (self._ns_per_event + self.outside) / 1e7

    def expect(self, factor: float) -> None:
        """From now on an event will cost so many times what it did, until that is measured."""
        self._ns_per_event *= factor
        self._changed()

    def _map_bytes(self) -> int | None:
        known = [size for size in self._units.values() if size is not None]
        return sum(known) if known else None

    def _read(self, runs: AllRuns, now: float) -> _Reading:
        mine = {unit: runs[unit] for unit in self._units if unit in runs}
        return _Reading(mine, self.events, now)


def _gained(start: RunStats, end: RunStats) -> RunStats:
    """What ran between two readings; all of the later one where the kernel counts anew."""
    if end.count < start.count or end.nanoseconds < start.nanoseconds:
        return end
    return RunStats(end.count - start.count, end.nanoseconds - start.nanoseconds)


def _rate(last: tuple[float, int], new: tuple[float, int], unknown: float | None) -> float | None:
    """Events a second between two moments; `unknown` where no time passed, or they began anew."""
    if new[0] <= last[0] or new[1] < last[1]:
        return unknown
    return (new[1] - last[1]) / (new[0] - last[0])


class Metered(Protocol):
    """A probe, as far as its cost is concerned."""

    meter: Meter

    def drain(self) -> None:
        """Bring `meter.events` up to this moment."""


class CostWindows:
    """When run-time statistics are on: WINDOW seconds in EVERY, or always.

    The owner asks the broker for what `due` says, notes the `request`, and hands the answer to
    `answered`. Until an answer has come, nothing else is due.
    """

    EVERY = 10.0
    WINDOW = 1.0

    def __init__(self, always: bool) -> None:
        self.request: int | None = None
        self._always = always
        self._open = False
        self._fresh: list[Meter] = []
        self._ending = False
        self._next = 0.0

    def due(self, running: Sequence[Metered], now: float) -> Literal["on", "off"] | None:
        """What the broker is to be asked for: statistics on (or their values now), or off."""
        if self.request is not None:
            return None
        if self._open and self._fresh:
            return "on"
        if now < self._next or not (self._open or running):
            return None
        self._ending = self._open
        return "off" if self._open and not self._always else "on"

    def answered(self, runs: AllRuns | None, running: Sequence[Metered], now: float) -> None:
        """The values as they are now; None where the kernel measures nothing."""
        self.request = None
        ended, self._ending = self._ending, False
        fresh, self._fresh = self._fresh, []
        if runs is None:
            self._open, self._next = False, now + self.EVERY
            return
        for probe in running:
            probe.drain()  # events and runs have to be of the same moment
            meter = probe.meter
            meter.told(runs)
            if ended:
                meter.end(runs, now)
            if (self._always or not ended) and (not meter.measuring or meter in fresh):
                meter.begin(runs, now)
        self._open = self._always or not ended
        self._next = now + (self.WINDOW if self._open else self.EVERY - self.WINDOW)
        if fresh and not self._open:
            # It began while the end of the window before was under way.
            self._next = now

    def begin_soon(self, probe: Metered, now: float) -> None:
        """Measure a probe that has just begun, in a window of full length."""
        self._next = now
        if self._open:
            self._next = now + self.WINDOW
            self._fresh.append(probe.meter)


class CallRate:
    """System calls a second of the whole machine, as long as their probe runs."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        self._rate: float | None = None

    def begin(self, meter: Meter, now: float) -> None:
        """Their probe runs from now on: what it counts next is of the time since."""
        self._last = now, meter.events

    def of(self, meter: Meter | None, now: float) -> float | None:
        """Since the call before, by the probe's meter; without one, as it was at last."""
        if meter is None:
            self._last = None
            return self._rate
        last, self._last = self._last, (now, meter.events)
        if meter.filtered:
            hits = meter.hits()
            self._rate = self._rate if hits is None else hits / meter.duty
        elif last is not None and now > last[0]:
            self._rate = max(0, meter.events - last[1]) / (now - last[0]) / meter.duty
        return self._rate

    def tell(self, meters: Iterable[Meter], counting: Meter | None, now: float) -> None:
        """Tell meters how many calls there are, None while nobody is `counting`."""
        rate = self.of(counting, now)
        for meter in meters:
            meter.calls = None if counting is None else rate
