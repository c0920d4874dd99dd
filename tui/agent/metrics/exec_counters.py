# SPDX-License-Identifier: Apache-2.0
"""Counters of program executions and ends of processes, made of successive Samples."""

from __future__ import annotations

from collections.abc import Iterator

from probes.core.sample import Sample
from probes.core.schema import Schema
from probes.core.syscall_names import errno_name
from probes.core.tables import comparable
from probes.execs.sample import ExecEvent, ExecSample, ExitEvent
from tui.agent.metrics.estimates import FailedEstimates
from tui.agent.metrics.families import Family, Names, counter
from tui.agent.metrics.increases import more
from tui.agent.metrics.probe_collector import Collector
from tui.agent.metrics.top_series import Crowd
from tui.agent.state.client_view import View

MOST_RESULTS = 160


class Settled:
    """What a probe's counters have that its events have not shown after one more Sample.

    Counters and events of one moment may arrive in two Samples; what was dropped never does.
    """

    def __init__(self) -> None:
        self.unknown = 0
        self._due = 0

    def add(self, counted: int, shown: int) -> None:
        """One Sample: how many more its counters and its events have."""
        due = self._due - shown
        if due > 0:
            self.unknown += due
            due = 0
        self._due = due + counted


class ExecCounters(Collector):
    """Program executions by result, and ends of processes by kind."""

    comes_first = True

    def __init__(self, name: str, schema: Schema, crowd: Crowd) -> None:
        super().__init__(name, schema, crowd)
        self._last: ExecSample | None = None
        self._execs = self._dropped = 0
        self._failed: dict[str, int] = {}
        self._exits = {"ok": 0, "nonzero": 0, "signal": 0}
        self._failures, self._ends = Settled(), Settled()
        self._results = Names(MOST_RESULTS)
        self._estimates = FailedEstimates()

    def add(self, new: Sample, now: float) -> None:
        """Take in the next Sample."""
        if not isinstance(new, ExecSample) or new.state != "on":
            return
        old = comparable(self._last, new)
        # Its events were counted: nobody needs them again.
        self._last = ExecSample(
            generation=new.generation, execs=new.execs, failed=new.failed, exits=new.exits,
            failed_duty=new.failed_duty, estimated_failed=new.estimated_failed,
        )  # fmt: skip
        self._estimates.add(old, new)
        self._execs += more(old.execs, new.execs)
        self._dropped += max(0, new.dropped)
        failed = ended = 0
        # What bursts saw is in the estimate.
        sampled = new.failed_duty is not None and not more(old.failed, new.failed)
        for event in new.events:
            if isinstance(event, ExitEvent):
                ended += 1
                kind = "signal" if event.signal else "nonzero" if event.exit_code else "ok"
                self._exits[kind] += 1
            elif event.ret < 0 and sampled:
                continue
            elif event.ret < 0:
                failed += 1
                name = self._results.of(errno_name(-event.ret))
                self._failed[name] = self._failed.get(name, 0) + 1
            else:
                self._tell(event)
        self._failures.add(more(old.failed, new.failed), failed)
        self._ends.add(more(old.exits, new.exits), ended)

    def _tell(self, event: ExecEvent) -> None:
        if event.cgroup is not None:
            self.crowd.tell(event.pid, event.cgroup)

    def families(self, view: View) -> Iterator[Family]:
        """What there is to expose."""
        results = {"ok": self._execs, **self._failed}
        if self._failures.unknown:
            results["unknown"] = self._failures.unknown
        yield counter(
            "probetop_execs", "Program executions: ok, or the errno of those that failed.",
            ("result",), [((name,), n) for name, n in results.items()],
        )  # fmt: skip
        kinds = {**self._exits, "unknown": self._ends.unknown}
        yield counter(
            "probetop_exits",
            "Processes that ended, by status. It is unknown of those that executed no program"
            " and were not killed, and of what came too fast.",
            ("kind",), [((kind,), n) for kind, n in kinds.items()],
        )  # fmt: skip
        yield counter(
            "probetop_exec_events_dropped",
            "Executions and exits that came too fast for their details to be kept.",
            (), [((), self._dropped)],
        )  # fmt: skip
        yield from self._estimates.families()
