# SPDX-License-Identifier: Apache-2.0
"""Carries out the clients' commands: probes, their options, targets and filters.

All of it runs on the event loop. The Source carries out commands in order and reports its probes'
state after them; a request waits for that report, not for the next Frame.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from probes.core.errors import ProbeError
from probes.core.frame import NO_FILTERS, Filters
from probes.host.filter_watch import FilterWatch
from probes.latency.sample import Target
from probes.live.probe_state import Standing
from probes.probe import Probe
from probes.source import Found
from probes.symbols import target_spec
from tui.agent.errors import Refused
from tui.agent.state.bounded_lock import BoundedLock
from tui.agent.state.frame_hub import Hub
from tui.agent.state.watch_lease import Demand, Watch
from tui.settings.validators import remedy, shown

SETTLE_SECONDS = 10.0
"""Seconds that an answer waits for the effect of its command."""
ANSWER_SECONDS = 30.0
MOST_CHANGES, MOST_QUESTIONS = 32, 32
"""Most waiting requests with changes, and most unanswered requests to the broker."""
ONE_TARGET = ("add", "remove", "follow")
"""Options that are commands, which have requests of their own."""


class Control:
    """Carries out the demand of clients and runs on the Source of a `hub`."""

    def __init__(
        self,
        hub: Hub,
        kinds: Mapping[str, type[Probe]],
        *,
        on: Sequence[str],
        options: Mapping[str, Mapping[str, Any]],
        filters: Filters = NO_FILTERS,
        interval: float = 1.0,
        linger: float = 0.0,
    ) -> None:
        """The other arguments are the Source's initial settings."""
        self.hub = hub
        self.interval = interval
        self.filters = filters
        self.options = {
            name: {**kind.options, **options.get(name, {})} for name, kind in kinds.items()
        }
        self.demand = Demand(kinds, on)
        self.watch = Watch(linger, time.monotonic())
        self.lock = BoundedLock(MOST_CHANGES)
        """Held while targets change, so that their state stays valid during a request."""
        self._questions = 0
        self._run_filters: Filters | None = None
        self._kept: FilterWatch | None = None
        self._on = {name: name in on for name in kinds}
        self._timer: asyncio.TimerHandle | None = None

    # Watching clients, and the probes that are on for them.

    @property
    def watched(self) -> bool:
        """True if a client watches, or did a moment ago."""
        return self.watch.watched(time.monotonic())

    def touch(self) -> None:
        """Note that a client has read data once, so that it counts as watched for a while."""
        self.watch.touch(time.monotonic())
        self.apply()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count as watched while the context lasts."""
        self.watch.enter()
        self.apply()
        try:
            yield
        finally:
            self.watch.leave(time.monotonic())
            self.apply()

    def apply(self) -> None:
        """Switch probes as needed, and schedule the next call for the end of the watch."""
        now = time.monotonic()
        on = self.demand.on(self.watch.watched(now))
        for name, was in self._on.items():
            if was != (name in on):
                self._toggle(name, name in on)
        left = self.watch.left(now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if left:
            self._timer = asyncio.get_running_loop().call_later(left + 0.01, self.apply)

    def _toggle(self, name: str, on: bool) -> None:
        self._on[name] = on
        self.hub.source.toggle(name, on)

    def close(self) -> None:
        """Cancel the scheduled call."""
        if self._timer is not None:
            self._timer.cancel()

    # Probes.

    def known(self, name: str) -> str:
        """Return a probe's name; raises Refused for an unknown one."""
        if name not in self._on:
            fix = remedy(name[:40], self._on)
            raise Refused(404, f"there is no probe {shown(name)}", fix)
        return name

    def attached(self) -> dict[str, bool]:
        """For each probe, True if it is to be attached now."""
        return dict(self._on)

    async def standings(self) -> Mapping[str, Standing]:
        """The state of all probes after all commands so far."""
        standings: Mapping[str, Standing] = await self._answer(self.hub.source.stand)
        return standings

    async def settled(self, name: str) -> Standing:
        """A probe's state once it has settled, or after `SETTLE_SECONDS`."""
        end, pause = time.monotonic() + SETTLE_SECONDS, 0.02
        while True:
            standing = (await self.standings())[name]
            if standing.settled or time.monotonic() > end:
                return standing
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.2)

    def switch(self, name: str, on: bool) -> None:
        """Add or remove the demand for a probe; one that failed is attached again."""
        self.watch.touch(time.monotonic())
        self.demand.wanted[name] = on
        again = on and self._on[name]
        self.apply()
        if again:
            # This has no effect on a probe that runs.
            self._toggle(name, True)

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Raise ProbeError for an unknown option of a probe, or an invalid value."""
        known = [option for option in self.options[name] if option not in ONE_TARGET]
        for option in options:
            if option not in known:
                fix = remedy(option[:40], known) if known else "it has none"
                raise ProbeError(f"{name} has no option {shown(option)}", fix)

    def set_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Change options of a probe, after all were validated; raises ProbeError."""
        for option, value in options.items():
            value = tuple(value) if isinstance(value, list) else value
            self.hub.source.set_option(name, option, value)
            self.options[name][option] = value

    # Filters and the interval.

    def set_filters(self, filters: Filters) -> None:
        """Change the filters, at the end of a run that has other ones. Raises ProbeError."""
        if self._run_filters is None:
            self.hub.source.set_filters(filters)
        else:
            self._kept = FilterWatch(filters)
        self.filters = filters

    def lend_filters(self, filters: Filters | None) -> None:
        """Use a run's filters; None restores the clients' filters. Raises ProbeError."""
        if filters == self._run_filters:
            return
        if filters is not None:
            kept = self._kept or self.hub.source.filter_watch
            self.hub.source.set_filters(filters)
            self._kept = kept
        elif self._kept is not None:
            # A reused pid is not the process that the client meant.
            self.hub.source.count(self._kept)
            self._kept = None
        self._run_filters = filters

    def set_interval(self, seconds: float) -> None:
        """Change the seconds between two Frames."""
        self.hub.source.set_interval(seconds)
        self.interval = seconds

    # Targets of the latency probe; the caller holds the lock.

    async def targets(self) -> Mapping[str, Target]:
        """All targets, by spec."""
        return (await self.standings())["latency"].targets

    async def add_target(self, spec: str) -> Target:
        """Add a target, and wait for it; raises ProbeError if it cannot be traced."""
        spec = target_spec.parse(spec).text
        if spec in await self.targets():
            raise ProbeError(f"{spec} is traced already", "see GET /v1/latency/targets")
        return await self._attach_target("add", spec)

    async def follow_target(self, spec: str) -> Target:
        """Attach a target to the file that its path names now; raises ProbeError."""
        return await self._attach_target("follow", target_spec.parse(spec).text)

    async def _attach_target(self, option: str, spec: str) -> Target:
        self.hub.source.set_option("latency", option, spec)
        standing = await self.settled("latency")
        target = standing.targets.get(spec)
        error: ProbeError | None = None
        if standing.state == "failed":
            error = ProbeError(standing.why or "it failed", standing.fix or "")
        elif target is None or target.state == "failed":
            why = target.why if target is not None else None
            error = ProbeError(why or "it cannot be traced", (target and target.fix) or "")
        if error is not None:
            if option == "add":
                await self.remove_target(spec)
            raise error
        assert target is not None
        return target

    async def remove_target(self, spec: str) -> bool:
        """Remove a target; return True if it existed."""
        if spec not in await self.targets():
            return False
        self.hub.source.set_option("latency", "remove", spec)
        await self.standings()
        return True

    # Requests to the broker.

    async def search(self, query: str) -> Sequence[Found]:
        """Search for targets."""
        source = self.hub.source
        found: Sequence[Found] = await self._told(
            lambda tell: source.search(query, tell), ANSWER_SECONDS
        )
        return found

    async def help(self, name: str, seconds: float = 70.0) -> Any:
        """Return the result of a broker's helper; raises Refused if it failed."""
        source = self.hub.source
        answer: dict[str, Any] = await self._told(lambda tell: source.help(name, tell), seconds)
        if not answer["ok"]:
            raise Refused(503, answer["why"], answer["fix"])
        return answer["result"]

    async def _told(self, question: Callable[[Callable[[Any], None]], None], seconds: float) -> Any:
        """Return the broker's answer; raises Refused if too many requests wait for one."""
        # The clients of some may have gone, but their requests wait all the same.
        if self._questions >= MOST_QUESTIONS:
            raise Refused(429, "too many questions wait for an answer", "try again in a minute")
        self._questions += 1
        try:
            return await self._answer(question, seconds)
        finally:
            self._questions -= 1

    async def _answer(
        self, question: Callable[[Callable[[Any], None]], None], seconds: float = ANSWER_SECONDS
    ) -> Any:
        try:
            # Not wait_for, which before Python 3.12 may lose a cancellation.
            async with asyncio.timeout(seconds):
                return await self.hub.ask(question)
        except TimeoutError:
            raise Refused(503, "the privileged helper does not answer", "try again") from None
