# SPDX-License-Identifier: Apache-2.0
"""What is filtered by and has gone is said at the bottom of the screen, and moves nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probes.core.frame import Filters, Notice
from tests.pilot.conftest import Run, footer, screen, shown
from tests.pilot.fake import NOON
from tests.pilot.snapshot import assert_snapshot
from tests.pilot.test_keys import tick, write
from tests.pilot.test_latency import focus

SIZES = [(80, 24), (120, 40)]
ENDED = Notice("process_ended", NOON + 2, 811, "postgres")
REMOVED = Notice("cgroup_removed", NOON + 2, cgroup="/system.slice/build.service")


@pytest.mark.parametrize(("columns", "rows"), SIZES)
async def test_nothing_but_the_line_of_keys_differs(run: Run, columns: int, rows: int) -> None:
    async with run(columns, rows) as (app, pilot, source):
        source.filters = Filters(pid=811)
        await tick(pilot, source, 3)
        before = screen(app)
        frame = app.view.player.frame
        assert frame is not None
        app.view.player.frame = replace(frame, notices=(ENDED,))
        app.controllers.status.update()
        app.dashboard.repaint()
        after = screen(app)
        assert after[:-1] == before[:-1]
        assert "process 811 (postgres) ended 22:13:22: p ends the filter" in footer(app)
        assert footer(app).rstrip().endswith("? help  q quit")
        assert_snapshot(app, f"process-ended-{columns}x{rows}")


async def test_it_goes_with_the_filter(run: Run) -> None:
    async with run() as (app, pilot, source):
        source.filters, source.notices = Filters(pid=811), (ENDED,)
        await tick(pilot, source)
        assert "ended" in footer(app)
        await pilot.press("p")
        assert source.commands[-1] == ("set_filters", Filters())
        source.notices = ()
        await tick(pilot, source)
        assert "ended" not in footer(app)
        assert "f find" in footer(app)


async def test_what_is_typed_and_what_is_answered_come_before_it(run: Run) -> None:
    async with run() as (app, pilot, source):
        source.filters, source.notices = Filters(cgroup=REMOVED.cgroup), (REMOVED,)
        await tick(pilot, source)
        assert "was removed 22:13:22: nothing is counted" in footer(app)
        await pilot.press("slash")
        await write(pilot, "fu")
        assert "removed" not in footer(app)
        await pilot.press("escape")
        assert "removed" in footer(app)
        await pilot.press("1")
        assert "System calls: detaching" in footer(app)


async def test_the_past_names_no_key(run: Run) -> None:
    async with run(120, 40) as (app, pilot, source):
        source.filters, source.notices = Filters(pid=811), (ENDED,)
        await tick(pilot, source, 3)
        await pilot.press("left")
        await pilot.pause()
        assert "process 811 (postgres) ended 22:13:22" in footer(app)
        assert "p ends" not in footer(app)
        await pilot.press("end")
        await pilot.pause()
        assert "p ends the filter" in footer(app)


@pytest.mark.parametrize(("columns", "rows"), SIZES)
async def test_a_replaced_file_moves_no_column(run: Run, columns: int, rows: int) -> None:
    async with run(columns, rows, ticks=30) as (app, pilot, source):
        await focus(app, pilot, "z", "down", "down", "down")
        heads = [line for line in screen(app) if "calls/s" in line and "p50" in line]
        before = [row[:20] for row in screen(app) if "uprobe:libc" in row]
        source.latencies.mark("uprobe:libc:malloc", "replaced")
        await tick(pilot, source)
        assert [line for line in screen(app) if "calls/s" in line and "p50" in line] == heads
        assert [row[:20] for row in screen(app) if "uprobe:libc" in row] == before
        assert "1 file replaced" in screen(app)[1]
        assert "file replaced: new processes run another; a follows it" in shown(app, "latency")
        assert "a follow file" in footer(app)
        assert_snapshot(app, f"file-replaced-{columns}x{rows}")
        await pilot.press("a")
        assert source.commands == [("set_option", "latency", "follow", "uprobe:libc:malloc")]


async def test_the_past_follows_no_file(run: Run) -> None:
    async with run(120, 40, ticks=5) as (app, pilot, source):
        source.latencies.mark("runq", "replaced")
        await tick(pilot, source, 3)
        await focus(app, pilot, "left", "a")
        assert "the past cannot be changed" in footer(app)
        assert source.commands == []
