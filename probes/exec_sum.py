# SPDX-License-Identifier: Apache-2.0
"""Program executions over a span: what many intervals counted together, see `probes.sums`."""

from __future__ import annotations

from typing import Any, cast

from probes.adding import (
    keep_first,
)
from probes.cgroup_names import CgroupName
from probes.execlog import ExecLog
from probes.programs import Programs
from probes.samples import (
    MAX_EVENTS,
    ExecSample,
    Sample,
)
from probes.sums import SampleSum, Tick


class ExecSum(SampleSum):
    """Program executions over a span: `log` has the newest rows, `programs` counts all.

    `names` are those of control groups that container runtimes told of.
    """

    every = True

    def __init__(self, kind: type[Sample] = ExecSample) -> None:
        super().__init__(kind)
        self.log = ExecLog(limit=MAX_EVENTS)
        self.programs = Programs()
        self.names: dict[str, CgroupName] = {}
        self._failed = self._dropped = 0
        self._counts = [0, 0, 0]

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        old, new = cast(ExecSample, old), cast(ExecSample, after)
        now = max([event.time for event in new.events], default=0.0)
        self.log.add(new.events, now or None)
        self.names.update(new.names)
        keep_first(self.names, MAX_EVENTS)
        self.programs.take(self.log, now)
        self._dropped += new.dropped
        pairs = ((new.execs, old.execs), (new.failed, old.failed), (new.exits, old.exits))
        delta = [max(0, a - b) for a, b in pairs]
        self._counts = [a + b for a, b in zip(self._counts, delta, strict=True)]
        tick.counts["execs"] = delta[0]
        if new.given_up is None:
            tick.counts["failed"] = self.log.failed - self._failed
        self._failed = self.log.failed

    def _own(self) -> dict[str, Any]:
        execs, failed, exits = self._counts
        return {
            "execs": execs, "failed": failed, "exits": exits,
            "events": (), "dropped": self._dropped,
        }  # fmt: skip
