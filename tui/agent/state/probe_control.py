# SPDX-License-Identifier: Apache-2.0
"""What the agent's clients control: which probes are on, their options, targets and filters.

Everything here happens on the event loop. The Source carries out commands in their order, and
says where its probes stand after them: that is waited for, not the next Frame.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from probes import specs
from probes.base import Found, Probe, ProbeError
from probes.filter_watch import FilterWatch
from probes.samples import NO_FILTERS, Filters, Target
from probes.slot import Standing
from tui.agent.errors import Refused
from tui.agent.state.bounded_lock import BoundedLock
from tui.agent.state.frame_hub import Hub
from tui.agent.state.watch_lease import Demand, Watch
from tui.settings.validators import near, shown

SETTLE_SECONDS = 10.0
"""How long an answer waits for what it asked for to come about."""
ANSWER_SECONDS = 30.0
MOST_CHANGES, MOST_QUESTIONS = 32, 32
"""Requests that wait to change something, and questions to the broker that are not answered."""
ONE_TARGET = ("add", "remove", "follow")
"""Options that are commands, for which there are requests of their own."""


class Control:
    """The wishes of clients, and of runs, carried out on the Source of a `hub`."""

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
        """The rest is how the Source was started."""
        self.hub = hub
        self.interval = interval
        self.filters = filters
        self.options = {
            name: {**kind.options, **options.get(name, {})} for name, kind in kinds.items()
        }
        self.demand = Demand(kinds, on)
        self.watch = Watch(linger, time.monotonic())
        self.lock = BoundedLock(MOST_CHANGES)
        """Held by who changes targets: what is true of them has to stay so for a moment."""
        self._questions = 0
        self._run_filters: Filters | None = None
        self._kept: FilterWatch | None = None
        self._on = {name: name in on for name in kinds}
        self._timer: asyncio.TimerHandle | None = None

    # Who watches, and what is on for it.

    @property
    def watched(self) -> bool:
        """Whether anybody watches, or has just now."""
        return self.watch.watched(time.monotonic())

    def touch(self) -> None:
        """Somebody looks at data once: for a while, it is watched."""
        self.watch.touch(time.monotonic())
        self.apply()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Somebody watches for as long as this lasts."""
        self.watch.enter()
        self.apply()
        try:
            yield
        finally:
            self.watch.leave(time.monotonic())
            self.apply()

    def apply(self) -> None:
        """Switch what is to be switched, and come back when nobody will be watching."""
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
        """Come back no more."""
        if self._timer is not None:
            self._timer.cancel()

    # Probes.

    def known(self, name: str) -> str:
        """A probe's name; raises Refused for an unknown one."""
        if name not in self._on:
            fix = near(name[:40], self._on)
            raise Refused(404, f"there is no probe {shown(name)}", fix)
        return name

    def attached(self) -> dict[str, bool]:
        """By name, whether a probe is to be attached now."""
        return dict(self._on)

    async def standings(self) -> Mapping[str, Standing]:
        """Where all probes stand, after what they were told so far."""
        standings: Mapping[str, Standing] = await self._answer(self.hub.source.stand)
        return standings

    async def settled(self, name: str) -> Standing:
        """Where a probe stands once it does, or as it does after some seconds."""
        end, pause = time.monotonic() + SETTLE_SECONDS, 0.02
        while True:
            standing = (await self.standings())[name]
            if standing.settled or time.monotonic() > end:
                return standing
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.2)

    def switch(self, name: str, on: bool) -> None:
        """Wish for a probe, or do not any more; one that failed is tried again."""
        self.watch.touch(time.monotonic())
        self.demand.wanted[name] = on
        again = on and self._on[name]
        self.apply()
        if again:
            # To one that runs it makes no difference.
            self._toggle(name, True)

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Raises ProbeError for what is no option of a probe, or no value of one."""
        known = [option for option in self.options[name] if option not in ONE_TARGET]
        for option in options:
            if option not in known:
                fix = near(option[:40], known) if known else "it has none"
                raise ProbeError(f"{name} has no option {shown(option)}", fix)

    def set_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Change options of a probe, all that are checked; raises ProbeError."""
        for option, value in options.items():
            value = tuple(value) if isinstance(value, list) else value
            self.hub.source.set_option(name, option, value)
            self.options[name][option] = value

    # Filters and the interval.

    def set_filters(self, filters: Filters) -> None:
        """Change what is counted, at the end of a run that has other filters; raises ProbeError."""
        if self._run_filters is None:
            self.hub.source.set_filters(filters)
        else:
            self._kept = FilterWatch(filters)
        self.filters = filters

    def lend_filters(self, filters: Filters | None) -> None:
        """Count what a run wants; None for what was wished for otherwise. Raises ProbeError."""
        if filters == self._run_filters:
            return
        if filters is not None:
            kept = self._kept or self.hub.source.filter_watch
            self.hub.source.set_filters(filters)
            self._kept = kept
        elif self._kept is not None:
            # A pid that was used again meanwhile does not mean the process that was asked for.
            self.hub.source.count(self._kept)
            self._kept = None
        self._run_filters = filters

    def set_interval(self, seconds: float) -> None:
        """Change the seconds between Frames."""
        self.hub.source.set_interval(seconds)
        self.interval = seconds

    # Targets of the latency probe; the lock is to be held.

    async def targets(self) -> Mapping[str, Target]:
        """By spec."""
        return (await self.standings())["latency"].targets

    async def add_target(self, spec: str) -> Target:
        """Trace one more, and wait for it; raises ProbeError if it cannot be traced."""
        spec = specs.parse(spec).text
        if spec in await self.targets():
            raise ProbeError(f"{spec} is traced already", "see GET /v1/latency/targets")
        return await self._attach_target("add", spec)

    async def follow_target(self, spec: str) -> Target:
        """Attach one anew to the file that its path leads to now; raises ProbeError."""
        return await self._attach_target("follow", specs.parse(spec).text)

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
        """Trace one no more; whether there was one."""
        if spec not in await self.targets():
            return False
        self.hub.source.set_option("latency", "remove", spec)
        await self.standings()
        return True

    # Questions.

    async def search(self, query: str) -> Sequence[Found]:
        """What can be traced."""
        source = self.hub.source
        found: Sequence[Found] = await self._told(
            lambda tell: source.search(query, tell), ANSWER_SECONDS
        )
        return found

    async def help(self, name: str, seconds: float = 70.0) -> Any:
        """What a helper of the broker's has done; raises Refused if it could not."""
        source = self.hub.source
        answer: dict[str, Any] = await self._told(lambda tell: source.help(name, tell), seconds)
        if not answer["ok"]:
            raise Refused(503, answer["why"], answer["fix"])
        return answer["result"]

    async def _told(self, question: Callable[[Callable[[Any], None]], None], seconds: float) -> Any:
        """What the broker answers; raises Refused where too many questions wait for it."""
        # The clients of some may have gone: their questions wait all the same.
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
            # Not wait_for, which before Python 3.12 may swallow that it is cancelled.
            async with asyncio.timeout(seconds):
                return await self.hub.ask(question)
        except TimeoutError:
            raise Refused(503, "the privileged helper does not answer", "try again") from None
