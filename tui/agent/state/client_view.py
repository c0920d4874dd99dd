# SPDX-License-Identifier: Apache-2.0
"""The reduced views of clients without control: Frames, targets and texts.

Any local user can read the name and cgroup of every process in /proc, so those stay. Arguments are
in /proc only while a process runs. Texts (of SQL, for example) are not in /proc at all, and the
names in container runtimes are for root.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from probes.core.frame import Frame
from probes.core.sample import Sample
from probes.execs.sample import ExecEvent, ExecSample
from probes.latency.sample import LatencySample, Target
from tui.agent.state.private_targets import MOST_KNOWN, PrivateTargets, in_file

Sight = Literal["all", "token", "socket", "public"]
"""The kind of client: with control, with a read token, on the socket, or any local user."""
NOTHING: Mapping[Any, Any] = {}
PROCESSES = ("processes", "estimated_processes")
TEXTS = ("texts", "estimated_texts")
"""Tables of a LatencySample by target and process, and by target and text."""
WITHHELD = "only who controls the agent is told why"


@dataclass(slots=True, eq=False)
class View:
    """The data that one kind of client sees.

    `private` decides which targets are hidden, None hides none. `names` tells whether names of
    container runtimes are shown, `contents` whether arguments and files of programs and texts are.
    """

    private: PrivateTargets | None = None
    names: bool = True
    contents: bool = True
    _seen: dict[str, tuple[Target, Target]] = field(default_factory=dict)

    def frame(self, frame: Frame) -> Frame:
        """The Frame, reduced to this view."""
        samples = {name: self._sample(sample) for name, sample in frame.samples.items()}
        if all(sample is frame.samples[name] for name, sample in samples.items()):
            return frame
        return replace(frame, samples=samples)

    def _sample(self, sample: Sample) -> Sample:
        if isinstance(sample, LatencySample):
            if not self.contents and any(getattr(sample, name) for name in TEXTS):
                without: dict[str, Any] = dict.fromkeys(TEXTS, NOTHING)
                sample = replace(sample, **without)
            return self._latency(sample)
        if isinstance(sample, ExecSample):
            if sample.names and not self.names:
                sample = replace(sample, names=NOTHING)
            return sample if self.contents or not sample.events else _without_contents(sample)
        return sample

    def _latency(self, sample: LatencySample) -> LatencySample:
        """A Sample with labels in place of private targets."""
        if self.private is None:
            return sample
        targets = self.targets(sample.targets)
        notes = tuple([self.words(note) or "" for note in sample.notes])
        why, fix, given_up = map(self.words, (sample.why, sample.fix, sample.given_up))
        if (why, fix, given_up, notes) != (sample.why, sample.fix, sample.given_up, sample.notes):
            sample = replace(sample, why=why, fix=fix, given_up=given_up, notes=notes)
        if all(target is sample.targets.get(spec) for spec, target in targets.items()):
            return sample
        label = self.private.label
        tables: dict[str, Any] = {
            name: {(label(spec), who): n for (spec, who), n in getattr(sample, name).items()}
            for name in (*PROCESSES, *TEXTS)
        }
        return replace(sample, targets=targets, **tables)

    def targets(self, targets: Mapping[str, Target]) -> dict[str, Target]:
        """Targets, by the visible form of their specs."""
        seen = {}
        for spec, target in targets.items():
            known = self._seen.get(spec)
            # Unchanged parts stay the same objects, because readers of Samples compare identities.
            same = known and known[0] is target and known[1].spec == self.spec(spec)
            seen[spec] = known if known and same else (target, self.target(target))
        if len(self._seen) > 2 * len(seen) + MOST_KNOWN:
            self._seen.clear()
        self._seen.update(seen)
        return {self.spec(spec): shown for spec, (_, shown) in seen.items()}

    def spec(self, spec: str) -> str:
        """A target's text, or its label."""
        return spec if self.private is None else self.private.label(spec)

    def target(self, target: Target) -> Target:
        """A target in this view."""
        if self.private is None:
            return target
        hidden = self.private.is_private(target.spec)
        if hidden or (target.state == "failed" and in_file(target.spec)):
            why = WITHHELD if target.why else target.why
            fix, functions = None, 0 if hidden else target.functions
            file = None if hidden else target.file
            spec = self.private.label(target.spec)
            return replace(target, spec=spec, why=why, fix=fix, functions=functions, file=file)
        why, fix = self.words(target.why), self.words(target.fix)
        if (why, fix) == (target.why, target.fix):
            return target
        return replace(target, why=why, fix=fix)

    def words(self, text: str | None) -> str | None:
        """A message about targets, unless it names a path."""
        return WITHHELD if self.private is not None and text and "/" in text else text


def _without_contents(sample: ExecSample) -> ExecSample:
    events = [
        replace(event, args=None, args_hidden=True, path=None, truncated=False)
        if isinstance(event, ExecEvent)
        else event
        for event in sample.events
    ]
    return replace(sample, events=tuple(events))


def views(private: PrivateTargets) -> dict[Sight, View]:
    """The view of each kind of client."""
    return {
        "all": View(),
        "token": View(private),
        "socket": View(private, names=False),
        "public": View(private, names=False, contents=False),
    }
