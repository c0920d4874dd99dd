# SPDX-License-Identifier: Apache-2.0
"""Program executions over a span: what many intervals counted together.

See `probes.sums.accumulators`.
"""

from __future__ import annotations

from typing import Any, cast

from probes.core.adding import keep_first
from probes.core.cgroup_names import CgroupName
from probes.core.estimates import add_all, add_duty, duty_between, estimate_delta
from probes.core.sample import NOT_ESTIMATED, Duty, Estimate, Sample
from probes.execs.process_log import ExecLog
from probes.execs.program_stats import Programs
from probes.execs.sample import MAX_EVENTS, ExecSample
from probes.execs.tree import exec_rows
from probes.sums.accumulators import SampleSum, Tick
from probes.sums.retention import Left
from probes.sums.summary_limits import TableLimits

FAILED_FIELDS = ("failed_duty", "failed_estimated", "failed_error")
"""What is told of failing executions where those were looked for in bursts."""


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
        self._failed_duty: Duty | None = None
        self._estimated: dict[int, Estimate] = {}

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
        self._failed_duty = add_duty(
            self._failed_duty, duty_between(old.failed_duty, new.failed_duty)
        )
        more = estimate_delta({0: old.estimated_failed}, {0: new.estimated_failed})
        add_all(self._estimated, more)

    def finish(self, sample: Sample, own: dict[str, Any], left: Left) -> dict[str, Any]:
        """Rows and programs in the place of events."""
        return _finished(self, sample, own)

    def cut(
        self, own: dict[str, Any], limits: TableLimits, left: Left, others: dict[str, Any]
    ) -> None:
        """Programs as any table; of the rows the newest, as a tree."""
        own["rows"] = _exec_rows(self, limits, others)
        super().cut(own, limits, left, others)

    def _own(self) -> dict[str, Any]:
        execs, failed, exits = self._counts
        return {
            "execs": execs, "failed": failed, "exits": exits,
            "events": (), "dropped": self._dropped, "failed_duty": self._failed_duty,
            "estimated_failed": self._estimated.get(0, NOT_ESTIMATED),
        }  # fmt: skip


def _exec_rows(total: ExecSum, limits: TableLimits, others: dict[str, Any]) -> list[dict[str, Any]]:
    """The newest rows, as a tree."""
    rows = list(total.log.rows)[-limits.execs :]
    made = rows[-1].serial if rows else 0
    if made > len(rows):
        others["rows"] = {"rows": made - len(rows)}
    return exec_rows(rows, limits.text, total.names)


def _finished(total: ExecSum, sample: Sample, own: dict[str, Any]) -> dict[str, Any]:
    """The contract's fields with rows and programs in the place of events."""
    programs: list[dict[str, Any]] = [
        {
            "program": name,
            "path": program.path,
            "starts": program.starts,
            "failed": sum(program.failed.values()),
            "errnos": program.failed,
            "nonzero": program.nonzero,
            "killed": program.killed,
            "mean": program.duration / program.ended if program.ended else None,
        }
        for name, program in total.programs.finish().items()
    ]
    programs.sort(key=lambda row: (-row["starts"] - row["failed"], row["program"]))
    return {
        "execs": cast(ExecSample, sample).execs,
        "failed": sum([row["failed"] for row in programs]),
        "exits": cast(ExecSample, sample).exits,
        "dropped": own["dropped"],
        **{name: own[name] for name in FAILED_FIELDS if name in own},
        "rows": [],
        "programs": programs,
    }
