# SPDX-License-Identifier: Apache-2.0
"""The base class of all probes: what each must do, and what most do alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from probes.bpf.control_page import Control
from probes.bpf.plan import Loaded, Params, Plan
from probes.budget.meter import Meter
from probes.budget.policy import ALL_OR_NOTHING, Part
from probes.core.errors import ProbeError
from probes.core.frame import Filters
from probes.core.sample import Sample
from probes.core.tables import stream_fields
from probes.ipc.messages import BurstReport


class Probe(ABC):
    """One probe: what to load, and how its maps become Samples.

    `plan` runs in the loader, with privileges; everything else in the dashboard, without.
    `options` are the switches a user has, with their values at start. A probe that is written
    without more than the abstract methods has no options, is attached all the time or not at all,
    sends no records, and streams the tables that its Sample declares.
    """

    name: ClassVar[str]
    sample_type: ClassVar[type[Sample]]
    options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self) -> None:
        self.meter = Meter()
        self.filters = Filters()
        self.started: int | None = None
        self._control: Control | None = None

    @staticmethod
    @abstractmethod
    def plan(params: Params) -> Plan:
        """What to compile, load and attach for these parameters; raises ProbeError."""

    @classmethod
    def contract(cls, before: Sample | None, after: Sample, seconds: float) -> dict[str, Any]:
        """The probe's own fields of a stream object, for the interval between two Samples.

        They are the tables that the Sample's schema makes of its fields.
        """
        return dict(stream_fields(cls.sample_type.schema, before, after))

    @abstractmethod
    def adopt(self, loaded: Loaded) -> None:
        """Take over what was loaded, replacing what ran before without losing its counts."""

    @abstractmethod
    def release(self) -> None:
        """Unmap, and have everything detached; cumulative counts stay."""

    @abstractmethod
    def read(self, now: float) -> Sample:
        """The cumulative counters at this moment (`now` is monotonic seconds)."""

    @abstractmethod
    def drain(self) -> None:
        """Take in what the maps hold, ahead of the next read, and set `meter.events`."""

    def params(self) -> Params:
        """What to ask the loader for, now: the argument of `plan`."""
        return {}

    def wait_fds(self) -> Sequence[int]:
        """Descriptors that become readable when `drain` should be called."""
        return ()

    def set_filters(self, filters: Filters, started: int | None = None) -> None:
        """Change what the kernel side counts, at once and without reloading; raises ProbeError.

        `started` is when the process of `filters` started, in ns since boot, None if unknown.
        """
        if self._control is not None:
            self._control.set_filters(filters, started)
        self.filters, self.started = filters, started

    def check_option(self, option: str, value: Any) -> None:
        """Raises ProbeError for a value that the option cannot have; callable anywhere."""
        raise ProbeError(f"{self.name} has no option {option}", "it has none")

    def set_option(self, option: str, value: Any) -> bool:
        """Take an option's new value; True if the loader must be asked for it."""
        self.check_option(option, value)
        return False

    def refuse(self, why: str, fix: str) -> bool:
        """What the loader was asked for failed; True if what runs already goes on."""
        return False

    def parts(self) -> Sequence[Part]:
        """What can be made cheaper, and each part's share of the cost since the last call."""
        return (Part("", ALL_OR_NOTHING, 0),)

    def give_up(self, what: str, level: int, why: str, fix: str) -> bool:
        """Take a part to another level; True if the loader must be asked for it.

        `why` and `fix` are for what is detached by it. The live source detaches a whole probe.
        """
        return False

    def burst(self, report: BurstReport) -> None:
        """Take in what the programs counted until a burst's end, or a change between ways.

        Nothing comes for a probe that is attached all the time, or not at all.
        """
        return

    def uncounted(self, now: float) -> float:
        """For how many seconds until `now` it was attached in bursts only."""
        return 0.0

    def given_up(self) -> str | None:
        """What is given up now, in a few words; None for nothing."""
        return None

    def last_seen(self, before: Sample | None, seconds: float) -> str:
        """What most of the events since `before` were, in a few words; "" for nothing to say."""
        return ""
