# SPDX-License-Identifier: Apache-2.0
"""Only so many requests wait for work that is done one at a time."""

from __future__ import annotations

import asyncio

from tui.agent.errors import Refused
from tui.agent.turns import MOST_WAITING, Turns


async def test_too_many_that_wait_are_refused_and_the_others_are_served() -> None:
    turns, served, refused = Turns(), 0, 0
    begun, go = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        nonlocal served, refused
        try:
            async with turns:
                begun.set()
                await go.wait()
                served += 1
        except Refused as error:
            refused += error.status == 429

    first = asyncio.create_task(work())
    await begun.wait()
    tasks = [asyncio.create_task(work()) for _ in range(50)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    go.set()
    await asyncio.gather(first, *tasks, return_exceptions=True)
    assert (served, refused) == (MOST_WAITING, 50 - MOST_WAITING)
    await work()
    assert served == MOST_WAITING + 1
