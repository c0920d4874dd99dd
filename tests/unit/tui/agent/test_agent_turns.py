# SPDX-License-Identifier: Apache-2.0
"""Only so many requests wait for work that is done one at a time."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.agent import OWN, Served, eventually
from tui.agent.errors import Refused
from tui.agent.state import probe_control
from tui.agent.state.bounded_lock import MOST_WAITING, BoundedLock


async def test_too_many_that_wait_are_refused_and_the_others_are_served() -> None:
    lock, served, refused = BoundedLock(), 0, 0
    begun, go = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        nonlocal served, refused
        try:
            async with lock:
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


async def test_work_that_no_request_asks_for_waits_however_many_do() -> None:
    lock, order = BoundedLock(1), []

    async def work(name: str) -> None:
        async with lock:
            await asyncio.sleep(0)
            order.append(name)

    async with lock:
        waiting = asyncio.create_task(work("request"))
        await asyncio.sleep(0)
        with pytest.raises(Refused):
            await work("one too many")
        own = asyncio.create_task(_own(lock, order))
        await asyncio.sleep(0)
    await asyncio.gather(waiting, own)
    assert order == ["request", "own"]


async def _own(lock: BoundedLock, order: list[str]) -> None:
    async with lock.unbounded():
        order.append("own")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/doctor", None),
        ("GET", "/v1/search?q=a", None),
        ("PUT", "/v1/probes/syscalls", {"on": True}),
    ],
)
def test_clients_that_go_leave_few_requests_to_a_broker_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: Any
) -> None:
    monkeypatch.setattr(probe_control, "MOST_QUESTIONS", 3)
    with Served(linger=0) as served:
        source, most = served.source, 3
        tells: list[Callable[[Any], None]] = []
        for question in ("help", "search"):
            monkeypatch.setattr(source, question, lambda _, tell: tells.append(tell))
        if method == "PUT":
            source.settling, most = False, probe_control.MOST_CHANGES + 1
        gone = [_sent(served, method, path, body) for _ in range(most)]
        asked = served.agent.control
        eventually("all wait", lambda: max(asked._questions, asked.lock._waiting + 1) == most)
        for client in gone:
            client.close()
        why = served.ask(method, path, body).refused(429)
        assert "too many" in why
        assert served.get("/healthz").status == 200
        # At last there are answers, and nothing is left of all of them.
        source.settling = True
        for tell in tells:
            tell({"ok": True, "result": {}} if "doctor" in path else [])
        eventually("none waits", lambda: not asked._questions and not asked.lock._lock.locked())


def _sent(served: Served, method: str, path: str, body: Any) -> socket.socket:
    """A connection with a request that nobody will read the answer of."""
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OWN}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    sock = served.connect()
    sock.sendall(head.encode() + data)
    return sock
