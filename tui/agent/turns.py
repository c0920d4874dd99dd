# SPDX-License-Identifier: Apache-2.0
"""Work that is done one request at a time: a lock for which only so many may wait."""

from __future__ import annotations

import asyncio

from tui.agent.errors import Refused

MOST_WAITING = 4
"""Requests that wait for one kind of work; those of clients that have gone wait as well."""


class Turns:
    """As asyncio.Lock, by `async with`; raises Refused where too many wait already."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._waiting = 0

    async def __aenter__(self) -> None:
        if self._waiting >= MOST_WAITING:
            raise Refused(429, "too many requests wait for this already", "try again in a minute")
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
