# SPDX-License-Identifier: Apache-2.0
"""Series of what was estimated from bursts, apart from those of what was counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from probes.core.estimates import add_all, estimate_delta, estimates_delta
from probes.core.sample import Estimate
from probes.execs.failed_execs import failed_estimate
from probes.execs.sample import ExecSample
from probes.pmc.bursts import BUSY, CLOCK, IDLE, MIGRATIONS, SWITCHES, WAIT
from probes.pmc.sample import PmcSample
from probes.syscalls.sample import SyscallSample
from tui.agent.metrics.families import OTHER, Family, counter, label
from tui.agent.metrics.top_series import (
    ESTIMATED_CALLS,
    ESTIMATED_CPU,
    ESTIMATED_CYCLES,
    ESTIMATED_ERRORS,
    ESTIMATED_INSTRUCTIONS,
    Crowd,
)

_TALLIES = {
    CLOCK: ESTIMATED_CPU,
    "cycles": ESTIMATED_CYCLES,
    "instructions": ESTIMATED_INSTRUCTIONS,
}
"""Where a process's estimates are counted, by quantity."""
_OF_CPUS = (
    ("cpu_busy_seconds", BUSY, 1e9, "Time of all CPUs with a process"),
    ("cpu_idle_seconds", IDLE, 1e9, "Time of all CPUs without a process"),
    ("context_switches", SWITCHES, 1.0, "Switches from one task to another"),
    ("task_migrations", MIGRATIONS, 1.0, "Moves of tasks to another CPU"),
    ("runqueue_wait_seconds", WAIT, 1e9, "Time that tasks waited for a CPU"),
)
"""Estimates of the machine: the name of a series, its quantity, its unit and what it is."""
MOST_ERRNOS = 2048
"""Most pairs of a call and an errno; further errnos of a call are `other`."""


class SyscallEstimates:
    """System calls that bursts stand for: never among those that were counted.

    `name_of` gives the label of a call.
    """

    def __init__(self, crowd: Crowd, name_of: Callable[[str], str]) -> None:
        self._crowd, self._name_of = crowd, name_of
        self._calls: dict[str, int] = {}
        self._errors: dict[tuple[str, str], int] = {}
        self._variance = 0

    def add(self, old: SyscallSample, new: SyscallSample) -> None:
        """Take in the next Sample; the crowd knows its names."""
        if old.estimated_total == new.estimated_total:
            return
        for name, more in estimates_delta(old.estimated, new.estimated).items():
            name = self._name_of(name)
            self._calls[name] = self._calls.get(name, 0) + more.n
        for (name, errno), part in estimate_delta(
            old.estimated_errnos, new.estimated_errnos
        ).items():
            key = (self._name_of(name), label(errno))
            if key not in self._errors and len(self._errors) >= MOST_ERRNOS:
                key = (key[0], OTHER)
            self._errors[key] = self._errors.get(key, 0) + part.n
        whole = estimates_delta({0: old.estimated_total}, {0: new.estimated_total})
        self._variance += whole[0].variance if whole else 0
        known = self._crowd.pids.get
        processes = estimates_delta(old.estimated_processes, new.estimated_processes)
        for pid, more in processes.items():
            owner = known(pid) or self._crowd.name(pid, new.comms.get(pid, ""))
            owner.tally[ESTIMATED_CALLS] += more.n
            owner.tally[ESTIMATED_ERRORS] += more.errors
            owner.recent += more.n

    def families(self) -> Iterator[Family]:
        """What there is to expose."""
        yield counter(
            "probetop_syscalls_estimated",
            "System calls while the probe was attached in bursts, by what those saw; "
            "probetop_syscalls_total has none of them.",
            ("syscall",), [((name,), n) for name, n in self._calls.items()],
        )  # fmt: skip
        yield counter(
            "probetop_syscall_errors_estimated", "Those of them that returned an error.",
            ("syscall", "errno"), self._errors.items(),
        )  # fmt: skip
        yield counter(
            "probetop_syscalls_estimated_variance",
            "The variance of all estimated calls together: the square root of its increase is the "
            "standard error of theirs.",
            (), [((), self._variance)] if self._calls else [],
        )  # fmt: skip


class FailedEstimates:
    """Executions that failed while those were looked for in bursts."""

    def __init__(self) -> None:
        self._failed = self._variance = 0
        self._seconds: float | None = None

    def add(self, old: ExecSample, new: ExecSample) -> None:
        """Take in the next Sample."""
        found = failed_estimate(old, new)
        if found is not None:
            self._failed += found.estimate.n
            self._variance += found.estimate.variance
            self._seconds = (self._seconds or 0.0) + found.duty.seconds

    def families(self) -> Iterator[Family]:
        """What there is to expose."""
        known = self._seconds is not None
        yield counter(
            "probetop_execs_failed_estimated",
            "Executions that failed while those were looked for in bursts, by what the bursts saw; "
            "probetop_execs_total has none of them.",
            (), [((), self._failed)] if known else [],
        )  # fmt: skip
        yield counter(
            "probetop_execs_failed_estimated_variance",
            "The variance of that: the square root of its increase is the standard error.",
            (), [((), self._variance)] if known else [],
        )  # fmt: skip
        yield counter(
            "probetop_execs_failed_estimated_seconds",
            "For how long failing executions were looked for in bursts only.",
            (), [] if self._seconds is None else [((), self._seconds)],
        )  # fmt: skip


class PmcEstimates:
    """What bursts stand for of switches and of the time of CPUs and processes."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._machine: dict[str, Estimate] = {}

    def add(self, old: PmcSample, new: PmcSample) -> None:
        """Take in the next Sample; the crowd knows its names."""
        add_all(self._machine, estimate_delta(old.estimated_machine, new.estimated_machine))
        crowd = self._crowd
        for (pid, quantity), part in estimate_delta(old.estimated, new.estimated).items():
            place = _TALLIES.get(quantity)
            if place is None or not pid or not part.n:
                continue
            owner = crowd.pids.get(pid) or crowd.name(pid, new.comms.get(pid, ""))
            owner.tally[place] += part.n
            if quantity == CLOCK:
                owner.recent += part.n / 1000

    def families(self) -> Iterator[Family]:
        """What there is to expose."""
        for name, quantity, unit, text in _OF_CPUS:
            one = self._machine.get(quantity)
            yield counter(
                f"probetop_{name}_estimated", f"{text} while switches were looked at in bursts.",
                (), [] if one is None else [((), one.n / unit)],
            )  # fmt: skip
            yield counter(
                f"probetop_{name}_estimated_variance",
                "The variance of that: the square root of its increase is the standard error.",
                (), [] if one is None else [((), one.variance / unit**2)],
            )  # fmt: skip
