# SPDX-License-Identifier: Apache-2.0
"""How many executions fail: counted while all are looked for, else estimated from bursts.

To see them perf looks at every system call of the machine. In a storm of those it does so in
bursts. Its events are closed by somebody else, who has to wait for the kernel, so that programs
run on for a moment: which executions a burst saw is told by the time of each, not by a counter.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from probes.budget.burst_sums import BurstSums
from probes.budget.policy import FULL, Level, bursts
from probes.core.estimates import duty_between, duty_object, estimate_delta, standard_error
from probes.core.sample import NOT_ESTIMATED, Duty, Estimate
from probes.execs.sample import ExecSample
from probes.ipc.messages import BurstReport

MOST_TIMES = 200_000
"""Most failures of one burst that are told apart by their time."""
SECONDS_OF_BURSTS = ((250, 1000), (60, 1000), (16, 1000))
"""Bursts of what takes about two milliseconds of a CPU to attach and to detach: one a second."""
LEVELS = (
    FULL,
    *bursts(1.0, SECONDS_OF_BURSTS, "failures "),
    Level("no failed executions", 0.0),
)
"""To see what fails, every system call of the machine is slowed down."""


class FailedExecs:
    """Counts failures. `counted` were counted one by one, `sampling` is whether none are now."""

    def __init__(self) -> None:
        self.counted = 0
        self._bursts = BurstSums("failed")
        self._last = 0
        self._times: deque[int] = deque(maxlen=MOST_TIMES)

    @property
    def sampling(self) -> bool:
        """Whether failures are looked for in bursts, or not at all."""
        return self._bursts.sampling

    @property
    def duty(self) -> Duty | None:
        """The bursts so far."""
        return self._bursts.duty

    @property
    def estimated(self) -> Estimate:
        """The failures that bursts stand for."""
        if self._bursts.is_enough():
            self._bursts.close()
        return self._bursts.tables["failed"].counts().get(0, NOT_ESTIMATED)

    def saw(self, time: int) -> None:
        """An execution failed at this time, in monotonic ns."""
        self._times.append(time)

    def count(self, counter: int) -> None:
        """Take in the programs' counter; what it gains between and within bursts is in neither."""
        if not self.sampling:
            self.counted += counter - self._last
        self._last = counter

    def pause(self, at: float) -> None:
        """From here on (monotonic seconds) there are bursts at most."""
        if not self.sampling:
            self.counted = max(0, self.counted - self._since(round(at * 1e9)))
            self._bursts.pause(at)
        self._times.clear()

    def resume(self, begin: int, now: float) -> None:
        """All are counted again since `begin`, in monotonic ns."""
        if self.sampling:
            self.counted += self._since(begin)
            self._bursts.resume(now)
        self._times.clear()

    def add(self, report: BurstReport) -> None:
        """Take in a burst. It counts while it was attached for certain."""
        begin, end = report.begin + report.edges, report.end - report.edges
        seen = len([time for time in self._times if begin <= time <= end])
        self._times.clear()
        if begin < end:
            sure = BurstReport(
                report.unit, report.group, report.number, "burst",
                report.since, begin, end, report.until,
            )  # fmt: skip
            self._bursts.add(sure, {"failed": {0: (seen, 0)}})

    def _since(self, time: int) -> int:
        return len([one for one in self._times if one > time])


class FailedEstimate(NamedTuple):
    """What the bursts of an interval tell of failures: `error` is the standard error."""

    duty: Duty
    estimate: Estimate
    error: float


def failed_estimate(before: ExecSample | None, after: ExecSample) -> FailedEstimate | None:
    """The failures between two Samples that bursts stand for; None where there were no bursts."""
    same = before is not None and before.generation == after.generation
    old = before if before is not None and same else ExecSample()
    duty = duty_between(old.failed_duty, after.failed_duty)
    if duty is None:
        return None
    more = estimate_delta({0: old.estimated_failed}, {0: after.estimated_failed})
    found = more.get(0, NOT_ESTIMATED)
    return FailedEstimate(duty, found, standard_error(*found, duty) or 0.0)


def failed_object(before: ExecSample | None, after: ExecSample) -> dict[str, Any]:
    """The same for a stream object; nothing where there were no bursts."""
    found = failed_estimate(before, after)
    if found is None:
        return {}
    return {
        "failed_duty": duty_object(found.duty),
        "failed_estimated": found.estimate.n,
        "failed_error": found.error,
    }
