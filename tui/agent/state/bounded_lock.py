# SPDX-License-Identifier: Apache-2.0
"""A lock with a limit on waiting requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tui.agent.errors import Refused

MOST_WAITING = 4
"""Most requests that wait for one kind of work, including those of clients that have gone."""


class BoundedLock:
    """An asyncio.Lock for `async with` that raises Refused while `most` requests wait."""

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
    async def unbounded(self) -> AsyncIterator[None]:
        """Hold the lock regardless of the limit, for work without a request."""
        async with self._lock:
            yield

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
