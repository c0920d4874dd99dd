# SPDX-License-Identifier: Apache-2.0
"""What the probes are doing, what they cost and what they lost, as series."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import probes
from probes.core.elapsed import exact_seconds
from probes.core.estimates import duty_between
from probes.core.frame import Frame
from probes.core.sample import Sample
from probes.core.tables import comparable
from tui.agent.metrics.families import Family, counter, gauge, label
from tui.agent.metrics.increases import more

MOST_PROBES = 32
"""Probes are few; Frames of another machine may say anything."""


class ProbeStates:
    """The newest Frame's states and costs, and counters of losses and events."""

    def __init__(self) -> None:
        self._frame: Frame | None = None
        self._frames = 0
        self._last: dict[str, Sample] = {}
        self._lost: dict[str, int] = {}
        self._events: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._estimated: dict[str, float] = {}
        self._attached: dict[str, float] = {}

    def add(self, frame: Frame) -> None:
        """Take in the next Frame."""
        self._frame = frame
        self._frames += 1
        for name, sample in list(frame.samples.items())[:MOST_PROBES]:
            if name not in self._lost and len(self._lost) >= MOST_PROBES:
                continue
            self._lost.setdefault(name, 0)
            self._events.setdefault(name, 0)
            self._seconds.setdefault(name, 0.0)
            if sample.state == "on":
                old = comparable(self._last.get(name), sample)
                self._lost[name] += more(old.lost, sample.lost)
                self._events[name] += more(old.cost.events, sample.cost.events)
                self._seconds[name] += exact_seconds(old, sample, 0.0)
                bursts = duty_between(old.duty, sample.duty)
                if bursts is not None:
                    self._estimated[name] = self._estimated.get(name, 0.0) + bursts.seconds
                    self._attached[name] = self._attached.get(name, 0.0) + bursts.on
                # Rows are not needed, and would be kept a second time.
                self._last[name] = type(sample)(
                    state="on",
                    generation=sample.generation,
                    lost=sample.lost,
                    cost=sample.cost,
                    counted=sample.counted,
                    duty=sample.duty,
                )

    def families(self) -> Iterator[Family]:
        """What there is to expose."""
        frame = self._frame
        host = frame.host if frame else None
        yield gauge(
            "probetop_build_info", "Always 1; the version of probetop, and the machine's kernel.",
            ("version", "kernel", "arch"),
            [((probes.__version__, label(host.release), label(host.arch)) if host
              else (probes.__version__, "", ""), 1)],
        )  # fmt: skip
        yield counter("probetop_frames", "Readings of all probes.", (), [((), self._frames)])
        if frame is None:
            return
        yield gauge(
            "probetop_frame_timestamp_seconds", "When the probes were read last, in Unix time.",
            (), [((), frame.time)],
        )  # fmt: skip
        yield gauge(
            "probetop_interval_seconds", "The wished time between two readings.",
            (), [((), frame.interval)],
        )  # fmt: skip
        yield gauge(
            "probetop_filtered", "1 while a filter is set: counts are of a part of the machine.",
            (), [((), float(bool(frame.filters.describe())))],
        )  # fmt: skip
        gone = any(n.kind in ("process_ended", "cgroup_removed") for n in frame.notices)
        yield gauge(
            "probetop_filter_gone",
            "1 while the process of the filter has ended, or its cgroup is removed.",
            (), [((), float(gone))],
        )  # fmt: skip
        yield from self._budget(frame)
        yield from self._probes(frame.samples)

    def _budget(self, frame: Frame) -> Iterator[Family]:
        budget = frame.budget
        used = budget.used if budget else None
        yield gauge(
            "probetop_budget_ratio",
            "What all probes together may cost, of all CPUs; absent for any amount.",
            (), [((), budget.percent / 100)] if budget else [],
        )  # fmt: skip
        yield gauge(
            "probetop_budget_used_ratio", "What they cost, of all CPUs; absent while not known.",
            (), [] if used is None else [((), used / 100)],
        )  # fmt: skip

    def _probes(self, samples: Mapping[str, Sample]) -> Iterator[Family]:
        known = {name: samples[name] for name in self._lost if name in samples}

        def one(name: str, text: str, value: Callable[[Sample], float | None]) -> Family:
            values = [(probe, value(sample)) for probe, sample in known.items()]
            return gauge(
                name, text, ("probe",), [((label(p),), v) for p, v in values if v is not None]
            )

        yield one("probetop_probe_up", "1 while the probe is attached.",
                  lambda sample: float(sample.state == "on"))  # fmt: skip
        yield one("probetop_probe_failed",
                  "1 while the probe is wanted and cannot run; what was detached to stay within "
                  "the budget is in probetop_probe_given_up.",
                  lambda sample: float(sample.state == "failed" and sample.given_up is None)
                  )  # fmt: skip
        yield one("probetop_probe_given_up",
                  "1 while the probe does less than it was asked for, to stay within the budget.",
                  lambda sample: float(sample.given_up is not None))  # fmt: skip
        yield one("probetop_probe_cost_ratio", "What the probe costs, of one CPU.",
                  lambda sample: _scaled(sample.cost.cpu_percent, 100))  # fmt: skip
        yield one("probetop_probe_event_seconds", "What one event costs.",
                  lambda sample: _scaled(sample.cost.ns_per_event, 1e9))  # fmt: skip
        yield one("probetop_probe_memory_bytes", "Memory of the kernel that the probe takes.",
                  lambda sample: sample.cost.map_bytes)  # fmt: skip
        yield counter(
            "probetop_probe_events", "Events that the probe's programs counted.", ("probe",),
            [((label(name),), n) for name, n in self._events.items()],
        )  # fmt: skip
        yield counter(
            "probetop_probe_seconds",
            "For how long the probe counted. Counts divided by its increase are rates also where "
            "the probe was attached for a part of the time only.",
            ("probe",), [((label(name),), n) for name, n in self._seconds.items() if n],
        )  # fmt: skip
        yield counter(
            "probetop_probe_estimated_seconds",
            "For how long the probe was attached in bursts only, to stay within the budget: "
            "the time that the series of estimates are of.",
            ("probe",), [((label(name),), n) for name, n in self._estimated.items()],
        )  # fmt: skip
        yield counter(
            "probetop_probe_burst_seconds", "For how much of that time the probe was attached.",
            ("probe",), [((label(name),), n) for name, n in self._attached.items()],
        )  # fmt: skip
        yield counter(
            "probetop_probe_losses", "Events that the probe could not hand over.", ("probe",),
            [((label(name),), n) for name, n in self._lost.items()],
        )  # fmt: skip


def _scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value / by
