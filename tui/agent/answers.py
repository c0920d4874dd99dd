# SPDX-License-Identifier: Apache-2.0
"""What all requests share: the agent that they are about, their bodies and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from probes.base import ProbeError
from probes.stream import dumps
from tui.agent.errors import JSON, Refused
from tui.agent.fields import Fields, parse

if TYPE_CHECKING:
    from tui.agent.control import Control
    from tui.agent.frames import Streams
    from tui.agent.hub import Hub
    from tui.agent.metrics import Metrics
    from tui.agent.runs import Runs
    from tui.agent.snapshots import Snapshots

MOST_BODY = 1 << 16
"""Bytes of a request's body."""
BODY_SECONDS = 10.0


@dataclass(slots=True)
class Agent:
    """The parts of the agent that requests are about; `tokens` says that it asks for some."""

    hub: Hub
    control: Control
    streams: Streams
    runs: Runs
    snapshots: Snapshots
    metrics: Metrics
    tokens: bool = False


def context(request: Request) -> Agent:
    """The agent."""
    return cast("Agent", request.app.state.agent)


def answer(value: Mapping[str, Any], status: int = 200, **headers: str) -> Response:
    """A JSON object."""
    return Response(dumps(value) + "\n", status, headers, JSON)


async def body(request: Request, known: Sequence[str]) -> Fields:
    """The JSON object of a body; raises Refused for one that is too long or too slow."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await _read(request)
    except TimeoutError:
        why = f"the body did not come within {BODY_SECONDS:g} seconds"
        raise Refused(400, why, "send it at once", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refused(400, "the body did not come to its end", "") from None
    return Fields(parse(data), known)


async def _read(request: Request) -> bytes:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MOST_BODY:
            why = f"the body is longer than {MOST_BODY >> 10} kB"
            raise Refused(413, why, "send less")
    return bytes(data)


def query(request: Request, known: Sequence[str] = ()) -> Fields:
    """The parameters in the address; raises ProbeError for unknown or repeated ones."""
    pairs = request.query_params.multi_items()
    if len({name for name, _ in pairs}) != len(pairs):
        raise ProbeError("a parameter is there twice", "give each once")
    return Fields(dict(pairs), known, "the address")


def number(fields: Fields, name: str, default: float, low: float, high: float) -> float:
    """A number among the parameters of an address."""
    text = fields.text(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise ProbeError(f"{name} {text[:40]!r}: not such a number", f"{low:g} to {high:g}")
    return value
