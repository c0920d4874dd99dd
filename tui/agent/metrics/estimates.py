# SPDX-License-Identifier: Apache-2.0
"""Series of what was estimated from bursts, apart from those of what was counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from probes.estimates import estimate_delta, estimates_delta
from probes.samples import SyscallSample
from tui.agent.metrics.families import OTHER, Family, counter, label
from tui.agent.metrics.top_series import ESTIMATED_CALLS, ESTIMATED_ERRORS, Crowd

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
