# SPDX-License-Identifier: Apache-2.0
"""What all requests share: the agent that they are about, their bodies and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from probes.base import ProbeError
from probes.stream import dumps
from tui.agent.errors import JSON, Refused
from tui.agent.fields import Fields
from tui.settings.decoding import NotJson, strict_json, typed

if TYPE_CHECKING:
    from tui.agent.auth import Access
    from tui.agent.control import Control
    from tui.agent.frames import Streams
    from tui.agent.hub import Hub
    from tui.agent.metrics import Metrics
    from tui.agent.private_targets import PrivateTargets
    from tui.agent.public import Sight, View
    from tui.agent.runs import Runs
    from tui.agent.snapshots import Snapshots

T = TypeVar("T")
MOST_BODY = 1 << 16
"""Bytes of a request's body."""
BODY_SECONDS = 10.0


@dataclass(slots=True)
class Agent:
    """The parts of the agent that requests are about.

    `tokens` says that it asks for some, `offsets` that places inside of functions may be timed,
    `report` is the doctor's last one.
    """

    hub: Hub
    control: Control
    streams: Streams
    runs: Runs
    snapshots: Snapshots
    metrics: Metrics
    private: PrivateTargets
    views: Mapping[Sight, View]
    tokens: bool = False
    offsets: bool = False
    report: Mapping[str, Any] | None = None


def context(request: Request) -> Agent:
    """The agent."""
    return cast("Agent", request.app.state.agent)


def access(request: Request) -> Access:
    """What the asker may do."""
    return cast("Access", request.state.access)


def sight(request: Request) -> Sight:
    """What kind of client it is, for what it sees."""
    return cast("Sight", request.state.sight)


def view(request: Request) -> View:
    """What the asker sees."""
    return context(request).views[sight(request)]


def answer(value: Mapping[str, Any], status: int = 200, **headers: str) -> Response:
    """A JSON object."""
    return Response(dumps(value) + "\n", status, headers, JSON)


async def body(request: Request, kind: type[T]) -> T:
    """A body as this type; raises Refused for one that is too long, too slow or no JSON."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await _read(request)
    except TimeoutError:
        why = f"the body did not come within {BODY_SECONDS:g} seconds"
        raise Refused(400, why, "send it at once", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refused(400, "the body did not come to its end", "") from None
    try:
        value = strict_json(data)
    except NotJson as error:
        raise Refused(400, error.why, error.fix) from None
    return typed(value, kind, "the body")


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
    return Fields(dict(pairs), known)


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
