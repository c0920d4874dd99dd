# SPDX-License-Identifier: Apache-2.0
"""Measurements that outlive a connection: one request starts one, another fetches it.

A run switches on what it needs, waits until that is on, and takes Frames for its seconds.
Afterwards it switches off what was on only for it. The number of runs is limited, and old ones are
dropped.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from probes.core.errors import ProbeError
from probes.core.frame import Filters, Frame
from probes.latency.sample import LatencySample
from probes.probe import Probe
from probes.report.summary import Summarizer
from tui.agent.errors import Refused
from tui.agent.malloc_trim import returning_memory
from tui.agent.state.client_view import PROCESSES, TEXTS, View
from tui.agent.state.probe_control import Control
from tui.export.write import content
from tui.settings.validators import shown

MOST_RUNNING, MOST_KEPT = 4, 32
LONGEST = 3600.0
MOST_AGE = 3600.0
"""Seconds that a result is kept."""
CLOSE_SECONDS = 0.2
STOP_SECONDS = 10.0
"""Seconds that a stop waits for a last Frame."""

RunState = Literal["running", "done", "stopped", "failed"]


@dataclass(slots=True, eq=False)
class Run:
    """One measurement. `began` and `ended` are Unix seconds of its counting, None before.

    `shown` and `shown_result` are the same for readers, None if readers may not see them.
    """

    id: str
    seconds: float
    probes: tuple[str, ...]
    targets: tuple[str, ...]
    filters: Filters | None
    summarizer: Summarizer
    created: float
    shown: Summarizer | None = None
    state: RunState = "running"
    began: float | None = None
    ended: float | None = None
    problems: list[dict[str, str]] = field(default_factory=list)
    result: bytes | None = None
    shown_result: bytes | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    ending: bool = False
    stopping: bool = False
    ready: bool = False
    born: float = field(default_factory=time.monotonic)
    added: list[str] = field(default_factory=list)

    def problem(self, what: str, why: str | None, fix: str | None) -> None:
        """Add a failed part, once."""
        if all(problem["what"] != what for problem in self.problems):
            self.problems.append({"what": what, "why": why or "it failed", "fix": fix or ""})

    def result_of(self, view: View) -> bytes | None:
        """The result as JSON, in a client's view; None before the end."""
        packed = self.result if view.private is None else self.shown_result
        return None if packed is None else zlib.decompress(packed).strip()


class Runs:
    """All runs by id, the oldest first."""

    def __init__(
        self, control: Control, kinds: Mapping[str, type[Probe]], readers: View | None = None
    ) -> None:
        """`readers` is the view of clients that may only read, None if they see nothing."""
        self._control = control
        self._kinds = kinds
        self._readers = readers
        self._runs: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Targets that no client has added, with the runs that use them.
        self._lent: dict[str, set[str]] = {}

    def all(self) -> list[Run]:
        """The runs that are kept."""
        now = time.monotonic()
        for run in list(self._runs.values()):
            if run.state != "running" and now - run.born - run.seconds > MOST_AGE:
                del self._runs[run.id]
        return list(self._runs.values())

    def get(self, identity: str) -> Run:
        """Return a run; raises Refused for an unknown id."""
        self.all()
        try:
            return self._runs[identity]
        except KeyError:
            why = f"there is no run {shown(identity)}"
            raise Refused(404, why, "see GET /v1/runs for those that are kept") from None

    def running(self) -> list[Run]:
        """The runs that have not ended."""
        return [run for run in self.all() if run.state == "running"]

    def begin(
        self, seconds: float, probes: Iterable[str], targets: Iterable[str], filters: Filters | None
    ) -> Run:
        """Start a run; raises Refused if that is impossible now."""
        running = self.running()
        if len(running) >= MOST_RUNNING:
            fix = "wait for one to end, or stop one with DELETE /v1/runs/ID"
            raise Refused(429, f"{MOST_RUNNING} runs at a time are the most", fix)
        if any(run.filters != filters for run in running if run.filters or filters):
            fix = "wait for it to end, or stop it with DELETE /v1/runs/ID"
            raise Refused(422, "a run with other filters goes on", fix)
        names, specs = tuple(probes), tuple(targets)
        kinds = {name: self._kinds[name] for name in names}
        run = Run(
            secrets.token_hex(8), seconds, names, specs, filters, Summarizer(kinds), time.time(),
            None if self._readers is None else Summarizer(kinds),
        )  # fmt: skip
        if filters is not None:
            self._control.lend_filters(filters)
        self._runs[run.id] = run
        while len(self._runs) > MOST_KEPT:
            oldest = next(one for one in self._runs.values() if one.state != "running")
            del self._runs[oldest.id]
        self._control.demand.runs[run.id] = frozenset(names)
        self._control.apply()
        task = asyncio.create_task(self._carry_out(run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    async def stop(self, run: Run) -> None:
        """End a run early with the next Frame's counts, and wait for its result."""
        run.stopping = run.ending = True
        if run.started.is_set():
            self._control.hub.source.hurry()
        else:
            _end(run)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await run.gone.wait()
        _end(run)
        await run.gone.wait()

    def forget(self, run: Run) -> None:
        """Drop a run that has ended."""
        self._runs.pop(run.id, None)

    def add(self, frame: Frame) -> None:
        """Take a Frame."""
        for run in self._runs.values():
            if run.state == "running" and run.ready and not run.over.is_set():
                _take(run, frame, self._readers)

    async def close(self) -> None:
        """End all runs at once, without results."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    async def _carry_out(self, run: Run) -> None:
        """Measure, and end the run in any case, because clients wait for its end."""
        state: RunState = "failed"
        try:
            state = await self._measured(run)
        except ProbeError as error:
            run.problem("run", error.why, error.fix)
        finally:
            # The accumulator needs much more memory than the result.
            run.summarizer, run.shown = Summarizer({}), None
            run.state = state if _works(run) else "failed"
            run.gone.set()

    async def _measured(self, run: Run) -> RunState:
        """Measure and store the result; raises ProbeError on failure."""
        state: RunState = "failed"
        try:
            await self._add_targets(run)
            if _works(run):
                await self._count(run)
                state = "stopped" if run.stopping else "done"
        finally:
            self._control.demand.runs.pop(run.id, None)
            if run.filters is not None and not any(r.filters for r in self.running() if r != run):
                self._control.lend_filters(None)
            # Set before any wait, so that the next client sees it.
            self._control.apply()
            await self._remove_targets(run)
        if run.summarizer.frames > 1:
            run.result = await asyncio.to_thread(_packed, run.summarizer)
            if run.shown is not None:
                run.shown_result = await asyncio.to_thread(_packed, run.shown)
        elif state == "done":
            state = "failed"
        return state

    async def _count(self, run: Run) -> None:
        """Take Frames, from one that is made for the start to one for the end."""
        for name in run.probes:
            await self._control.settled(name)
        run.ready = True
        self._control.hub.source.hurry()
        await run.started.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(run.seconds):
                await run.over.wait()
        if not run.over.is_set():
            run.ending = True
            self._control.hub.source.hurry()
            await run.over.wait()

    async def _add_targets(self, run: Run) -> None:
        """Add the missing targets; one that cannot be traced is a problem of the run."""
        for spec in run.targets:
            async with self._control.lock.unbounded():
                try:
                    await self._add_target(run, spec)
                except ProbeError as error:
                    run.problem(spec, error.why, error.fix)

    async def _add_target(self, run: Run, spec: str) -> None:
        if spec in self._lent:
            self._lent[spec].add(run.id)
        elif spec not in await self._control.targets():
            await self._control.settled("latency")
            await self._control.add_target(spec)
            self._lent[spec] = {run.id}

    async def _remove_targets(self, run: Run) -> None:
        for spec in [spec for spec, users in self._lent.items() if run.id in users]:
            async with self._control.lock.unbounded():
                # Other clients may have changed the targets during the wait.
                users = self._lent.get(spec, set())
                users.discard(run.id)
                if spec in self._lent and not users:
                    del self._lent[spec]
                    await self._control.remove_target(spec)

    def keep(self, spec: str) -> bool:
        """Keep a target that a run has added: it now belongs to a client."""
        return self._lent.pop(spec, None) is not None


def _works(run: Run) -> bool:
    """True if anything is measured."""
    failed = {problem["what"] for problem in run.problems}
    if "latency" in run.probes and run.targets and failed.issuperset(run.targets):
        failed.add("latency")
    return not failed.issuperset(run.probes)


def _end(run: Run) -> None:
    """Stop taking Frames."""
    run.started.set()
    run.over.set()


def _take(run: Run, frame: Frame, readers: View | None) -> None:
    samples = {name: frame.samples[name] for name in run.probes if name in frame.samples}
    for name, sample in samples.items():
        if sample.state == "failed":
            run.problem(name, sample.why, sample.fix)
    if run.began is None:
        if any(sample.state in ("starting", "off") for sample in samples.values()):
            return
        if not _works(run):
            _end(run)
            return
        run.began = frame.time
        run.started.set()
    latency = samples.get("latency")
    if run.targets and isinstance(latency, LatencySample):
        samples["latency"] = _narrowed(latency, frozenset(run.targets))
    frame = replace(frame, samples=samples)
    run.summarizer.add(frame)
    if run.shown is not None and readers is not None:
        run.shown.add(readers.frame(frame))
    run.ended = frame.time
    if run.ending and run.summarizer.frames > 1:
        run.over.set()


def _narrowed(sample: LatencySample, specs: frozenset[str]) -> LatencySample:
    """The Sample with only these targets."""
    tables: dict[str, Any] = {
        name: {key: n for key, n in getattr(sample, name).items() if key[0] in specs}
        for name in (*PROCESSES, *TEXTS)
    }
    targets = {spec: target for spec, target in sample.targets.items() if spec in specs}
    return replace(sample, targets=targets, **tables)


def _packed(summarizer: Summarizer) -> bytes:
    with returning_memory():
        return zlib.compress(content(summarizer, ".json", None).encode("ascii"))
