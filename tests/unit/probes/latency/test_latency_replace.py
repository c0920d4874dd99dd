# SPDX-License-Identifier: Apache-2.0
"""The option `targets` while targets run: what stays keeps its counts, what goes is detached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from probes.bpf.row_table import SeenRow, Values
from probes.core.errors import ProbeError
from probes.latency.facts import TargetFacts
from probes.latency.loaded_group import Unit
from probes.latency.probe import LatencyProbe
from probes.latency.sample import Spent
from tests.unit.target_facts import target_facts


class FakeUnit:
    """Targets that run, as far as `LatencyProbe` reads them; `counts` are by slot."""

    def __init__(self, *specs: str) -> None:
        self.slots: dict[int, TargetFacts] = {
            slot: target_facts(spec=spec) for slot, spec in enumerate(specs)
        }
        self.counts = [(0, 0, 0)] * len(specs)
        self.changes: list[tuple[int, int, int, int]] = []
        self.control = None
        self.per_call = self.switching = 0.0
        self.bursts: Any = None
        self.rows = SimpleNamespace(
            renumber=lambda processes: None,
            lists=lambda control: [list(range(len(self.changes)))],
            read=self._rows,
            meet=lambda noted, processes: noted,
            look_again=lambda noted: None,
        )
        self.hists = SimpleNamespace(
            counters=lambda: self.counts, read=self._read, reading=lambda control: nullcontext()
        )
        self.closed = False

    def _rows(self, noted: list[int]) -> Iterator[tuple[int, SeenRow, Values]]:
        """Process, target, count and sum of each of the changes."""
        for entry in noted:
            row = SeenRow()
            row.process, row.what, count, total = self.changes[entry]
            yield entry, row, (count, total, row.owner, row.extras)

    @staticmethod
    def _read(slot: int, old: Any) -> Any:
        return old._replace(n=old.n + 1)

    def drop(self, slot: int) -> None:
        del self.slots[slot]

    def close(self) -> None:
        self.closed = True


def running(*groups: tuple[str, ...]) -> tuple[LatencyProbe, list[FakeUnit]]:
    """A probe whose targets run, loaded in these groups."""
    probe = LatencyProbe()
    probe.set_option("targets", tuple(spec for group in groups for spec in group))
    probe._targets = {spec: replace(t, state="on") for spec, t in probe._targets.items()}
    units = [FakeUnit(*group) for group in groups]
    probe._units = [cast(Unit, unit) for unit in units]
    return probe, units


def specs_of(units: list[FakeUnit]) -> list[str]:
    return [facts.spec for unit in units for facts in unit.slots.values()]


def test_targets_that_are_not_wanted_any_more_are_detached() -> None:
    probe, units = running(("runq", "irq"), ("softirq",))
    assert probe.set_option("targets", ["irq", "func:vfs_read"]) is True
    assert specs_of(units) == ["irq"]
    assert (units[0].closed, units[1].closed) == (False, True)
    assert {spec: target.state for spec, target in probe.targets.items()} == {
        "irq": "on",
        "func:vfs_read": "starting",
    }
    # Only what is new is loaded, and what comes from the kernel has a target to go to.
    assert probe.params()["targets"] == ["func:vfs_read"]
    units[0].counts = [(0, 0, 0), (7, 0, 0)]
    units[0].changes = [(1, 0, 3, 30), (1, 1, 7, 70)]
    probe.drain()
    assert probe.targets["irq"].histogram.n == 1
    assert probe._processes == {("irq", 1): Spent(7, 70)}


def test_the_same_targets_change_nothing() -> None:
    probe, units = running(("runq", "irq"))
    probe._processes[("runq", 5)] = Spent(1, 1)
    before = probe.targets["runq"]
    assert probe.set_option("targets", ["runq", "irq", "runq"]) is False
    assert specs_of(units) == ["runq", "irq"]
    assert probe.targets["runq"] is before
    assert probe._processes == {("runq", 5): Spent(1, 1)}


def test_no_targets_detach_all() -> None:
    probe, units = running(("runq",), ("irq",))
    assert probe.set_option("targets", ()) is False
    assert [unit.closed for unit in units] == [True, True]
    probe.drain()
    assert probe.targets == {}


def test_a_target_that_failed_or_was_given_up_is_loaded_anew() -> None:
    probe, units = running(("runq", "irq"))
    probe._targets["irq"] = replace(probe._targets["irq"], state="failed", why="no")
    probe._ladders.put("runq", 1)
    assert probe.set_option("targets", ["runq", "irq"]) is True
    assert probe.params()["targets"] == ["runq", "irq"]
    assert units[0].closed


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("targets", 5),
        ("targets", "runq"),
        ("targets", None),
        ("targets", {"runq": 1}),
        ("targets", ["runq", 5]),
        ("targets", [["runq"]]),
        ("add", 5),
        ("add", None),
        ("add", ["runq"]),
        ("remove", b"runq"),
    ],
)
def test_values_of_other_types_are_refused_and_change_nothing(option: str, value: Any) -> None:
    probe, units = running(("runq",))
    with pytest.raises(ProbeError, match=f"{option} of the latency probe is not a"):
        probe.set_option(option, value)
    assert specs_of(units) == ["runq"]
    assert list(probe.targets) == ["runq"]
