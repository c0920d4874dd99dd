# SPDX-License-Identifier: Apache-2.0
"""Work that is done one request at a time: a lock for which only so many may wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tui.agent.errors import Refused

MOST_WAITING = 4
"""Requests that wait for one kind of work; those of clients that have gone wait as well."""


class Turns:
    """As asyncio.Lock, by `async with`; raises Refused where `most` wait already."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._lock = asyncio.Lock()
        self._most = most
        self._waiting = 0

    async def __aenter__(self) -> None:
        if self._waiting >= self._most:
            raise Refused(429, "too many requests wait for this already", "try again in a minute")
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1

    @asynccontextmanager
    async def waited_for(self) -> AsyncIterator[None]:
        """A turn however many wait: for what no request asks for, and has to be done."""
        async with self._lock:
            yield

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
