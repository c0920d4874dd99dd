# SPDX-License-Identifier: Apache-2.0
"""The budget on the screen: what is reduced, the key that lifts it, and fewer frames."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probes.core.errors import ProbeError
from probes.core.sample import Budget, Duty, Estimates
from probes.syscalls.sample import SyscallSample
from tests.pilot.conftest import Run, footer, screen, shown
from tests.pilot.fake import FakeSource
from tests.pilot.test_slow_link import clock, drawings, with_writer
from tui.widgets.help import KEYS

HELD = Budget(2.0, 1.4)
SAMPLING = "sampling 1 s in 16: over 2 % CPU (probe 15 %)"


class Sampled(FakeSource):
    """System calls come from bursts; no burst ends in every other interval."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = HELD
        self.n = self.ticks = 0

    def _syscalls(self) -> SyscallSample:
        sample = super()._syscalls()
        if not self.ticks:
            self._first = sample
        self.ticks += 1
        self.n += 160_000 * (self.ticks % 2)
        part = Estimates(self.n, self.n // 10, 400**2 * self.ticks, 100**2 * self.ticks)
        return replace(
            self._first,
            given_up=SAMPLING,
            counted=0.0,
            duty=Duty(5 * (self.ticks // 2 + 1), 0.0625, 1.0 * self.ticks, 0.0, 4),
            estimated={"futex": part},
            estimated_matrix={(811, "futex"): part},
            estimated_processes={811: part},
            estimated_total=part,
        )


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_b_lifts_the_budget_and_has_it_hold_again(run: Run, size: tuple[int, int]) -> None:
    async with run(*size, source=Sampled()) as (app, pilot, source):
        head = screen(app)[0]
        assert "syscalls sampling 1 s in 16" in head
        assert "B lifts it" in head or "B: budget off for 60 s" in head
        await pilot.press("B")
        assert source.commands == [("lift_budget", 60.0)]
        assert "budget off for 60 s" in footer(app)
        source.budget = HELD._replace(lifted=41.0)
        source.push()
        await pilot.pause()
        assert "budget off for 41 s" in screen(app)[0]
        await pilot.press("B")
        assert source.commands[-1] == ("lift_budget", 0.0)
        assert "the budget holds again" in footer(app)


async def test_without_a_budget_there_is_nothing_to_lift(run: Run) -> None:
    async with run() as (app, pilot, source):
        await pilot.press("B")
        assert source.commands == []
        assert "there is no budget" in footer(app)


async def test_who_may_not_lift_it_is_told_in_a_line(run: Run) -> None:
    source = FakeSource()
    source.budget = HELD
    source.errors["lift_budget"] = ProbeError("an agent keeps to its budget", "start it anew")
    async with run(source=source) as (app, pilot, _):
        await pilot.press("B")
        assert "an agent keeps to its budget" in footer(app)


async def test_help_and_palette_have_the_key(run: Run) -> None:
    assert "B" in [key for key, _ in KEYS]
    async with run(120, 40) as (app, _, _):
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert "Budget: off for 60 s, or on again" in titles


async def test_one_frame_in_so_many_is_drawn_and_graphs_go_last(run: Run) -> None:
    async with run(120, 40, 20) as (app, pilot, source):
        writer = with_writer(app)
        for many, drawn in ((1, 10), (2, 5), (5, 2)):
            source.budget = HELD._replace(drawing=many)
            seen = set()
            for _ in range(2 * many):
                writer.now += 1
                source.push()
                await pilot.pause()
            for _ in range(10):
                writer.now += 1
                source.push()
                await pilot.pause()
                seen.add(clock(app))
            assert len(seen) in (drawn, drawn + 1)
            assert bool(drawings(app)) == (many < 5)
        source.budget = HELD._replace(drawing=5, lifted=60.0)
        for _ in range(2):
            was = clock(app)
            writer.now += 1
            source.push()
            await pilot.pause()
            assert clock(app) != was
        assert drawings(app)


async def test_columns_stay_where_they_are_between_bursts(run: Run) -> None:
    async with run(120, 40, source=Sampled()) as (app, pilot, source):
        heads = set()
        for _ in range(6):
            source.push()
            await pilot.pause()
            lines = shown(app, "syscalls").splitlines()
            heads.add(next(line for line in lines if "err/s" in line))
        assert len(heads) == 1
        assert "±" in heads.pop()


async def test_who_presses_a_key_sees_the_next_frame(run: Run) -> None:
    async with run(120, 40, 5) as (app, pilot, source):
        writer = with_writer(app)
        source.budget = HELD._replace(drawing=5)
        for _ in range(6):
            writer.now += 1
            source.push()
            await pilot.pause()
            if app.view.player.behind:
                break
        was = clock(app)
        assert app.view.player.behind
        await pilot.press("down")
        writer.now += 1
        source.push()
        await pilot.pause()
        assert clock(app) != was
