# SPDX-License-Identifier: Apache-2.0
"""What a target on one system call costs all the others is known, once for all of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

from probes.budget.attach_overhead import a_call
from probes.latency.loaded_group import Unit
from probes.latency.planner import watches_calls, wish
from probes.latency.probe import LatencyProbe
from tests.unit.target_facts import target_facts


def test_only_targets_on_system_calls_are_gauged() -> None:
    assert LatencyProbe.plan({"targets": ["syscall:read", "runq"]}).gauge is a_call
    assert LatencyProbe.plan({"targets": ["runq"]}).gauge is None
    assert all(watches_calls(one) for one in wish("syscall:read", 0).attach[1:])


def unit(per_call: float, *targets: tuple[str, bool]) -> Unit:
    """Targets and whether each makes calls pay."""
    slots = {i: target_facts(spec=spec, watches=pays) for i, (spec, pays) in enumerate(targets)}
    return cast(Unit, SimpleNamespace(per_call=per_call, slots=slots, bursts=None))


def test_what_calls_pay_is_shared_among_those_that_make_them() -> None:
    probe = LatencyProbe()
    probe.set_option("targets", ("syscall:read", "syscall:write", "runq"))
    probe._targets = {spec: replace(t, state="on") for spec, t in probe._targets.items()}
    probe._units = [
        unit(30.0, ("syscall:read", True), ("runq", False)),
        unit(20.0, ("syscall:write", True)),
    ]
    assert probe._per_call() == {"syscall:read": 30.0, "syscall:write": 20.0}
    shares = {part.what: part.per_call for part in probe.parts()}
    assert shares == {"syscall:read": 15.0, "syscall:write": 15.0, "runq": 0.0}
