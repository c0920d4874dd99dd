# SPDX-License-Identifier: Apache-2.0
"""The live Source's side of names: what to ask the broker for, and Samples with the answers."""

from __future__ import annotations

from dataclasses import replace

from probes.broker.client import BrokerLink
from probes.core.cgroup_names import CgroupName, Names
from probes.core.sample import Sample
from probes.execs.sample import ExecEvent, ExecSample
from probes.ipc.messages import Answer

MOST_SHOWN = 1000
"""Most control groups that a Sample has names of; those seen last are kept."""


class Naming:
    """`names` may be read by any thread; the rest is for the thread that polls."""

    def __init__(self) -> None:
        self.names = Names()
        self._request = 0
        self._shown: dict[str, CgroupName] = {}

    def ask(self, link: BrokerLink) -> None:
        """Ask the broker, if there is something to ask."""
        ids = self.names.question()
        if ids:
            self._request = link.tell("names", ids=list(ids))

    def answered(self, answer: Answer) -> bool:
        """Take in an answer; False for one to something else."""
        if not self._request or answer.id != self._request:
            return False
        self._request = 0
        self.names.learn(answer.names or None)
        return True

    def named(self, sample: Sample) -> Sample:
        """The Sample with the names of its control groups, those of older ones included."""
        if not isinstance(sample, ExecSample):
            return sample
        events = (event for event in sample.events if isinstance(event, ExecEvent))
        paths = {event.cgroup for event in events if event.cgroup is not None}
        found = {path: name for path in paths if (name := self.names.told(path)) is not None}
        found |= {path: name for path in self._shown if (name := self.names.told(path)) is not None}
        # What did not change stays the very same object, as readers of Samples rely on.
        if found != self._shown:
            kept = [*(path for path in self._shown if path not in paths), *paths]
            last = [path for path in kept if path in found][-MOST_SHOWN:]
            old = self._shown
            self._shown = {p: old[p] if old.get(p) == found[p] else found[p] for p in last}
        return replace(sample, names=self._shown)
