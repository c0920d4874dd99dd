# SPDX-License-Identifier: Apache-2.0
"""Every run ends, whatever its end meets: other requests, and commands that are refused."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from probes.core.errors import ProbeError
from probes.report.summary import Summarizer
from tui.agent.state.bounded_lock import BoundedLock
from tui.agent.state.measurements import Run, Runs
from tui.agent.state.probe_control import Control


class FakeControl:
    """Removes targets after a moment; with `why`, gives filters back to nobody."""

    def __init__(self, why: str = "") -> None:
        self.lock = BoundedLock()
        self.demand = self
        self.runs: dict[str, Any] = {}
        self.why = why
        self.removed: list[str] = []

    def apply(self) -> None:
        """Nothing is switched."""

    async def remove_target(self, spec: str) -> None:
        await asyncio.sleep(0.01)
        self.removed.append(spec)
        if self.why:
            raise ProbeError(self.why)


def made(control: FakeControl, *names: str) -> tuple[Runs, list[Run]]:
    """Runs that measure nothing, and lend one target to the first."""
    runs = Runs(cast(Control, control), {})
    found = [Run(n, 1, ("latency",), ("softirq",), None, Summarizer({}), 0.0) for n in names]
    runs._runs = {run.id: run for run in found}
    runs._lent = {"softirq": {names[0]}}

    async def nothing(run: Run) -> None:
        """Nothing is added, nothing is counted."""

    runs._add_targets = runs._count = nothing  # type: ignore[method-assign]
    return runs, found


async def test_runs_that_end_while_another_request_has_the_lock() -> None:
    control = FakeControl()
    runs, found = made(control, "a", "b")
    async with control.lock:
        tasks = [asyncio.create_task(runs._carry_out(run)) for run in found]
        await asyncio.sleep(0.02)
    await asyncio.wait_for(asyncio.gather(*tasks), 20)
    assert all(run.gone.is_set() and run.state != "running" for run in found)
    assert control.removed == ["softirq"]


async def test_a_target_that_another_run_takes_meanwhile_stays() -> None:
    control = FakeControl()
    runs, (one,) = made(control, "a")
    async with control.lock:
        task = asyncio.create_task(runs._carry_out(one))
        await asyncio.sleep(0.02)
        runs._lent["softirq"].add("b")
    await task
    assert (runs._lent, control.removed) == ({"softirq": {"b"}}, [])


@pytest.mark.parametrize("why", ["the privileged helper does not answer"])
async def test_a_command_that_is_refused_ends_the_run_and_is_said(why: str) -> None:
    runs, (one,) = made(FakeControl(why), "a")
    await runs._carry_out(one)
    assert (one.state, one.gone.is_set()) == ("failed", True)
    assert one.problems == [{"what": "run", "why": why, "fix": ""}]
