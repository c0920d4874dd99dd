# SPDX-License-Identifier: Apache-2.0
"""Parts that all requests share: the agent, and their bodies and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from msgspec import Struct, to_builtins
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from probes.core.errors import ProbeError
from probes.report.stream import dumps
from tui.agent.errors import JSON, Refused
from tui.settings.decoding import NotJson, strict_json, typed
from tui.settings.validators import remedy, shown

if TYPE_CHECKING:
    from tui.agent.http.auth import Access
    from tui.agent.http.frame_streams import Streams
    from tui.agent.metrics.collector import Metrics
    from tui.agent.state.client_view import Sight, View
    from tui.agent.state.frame_hub import Hub
    from tui.agent.state.measurements import Runs
    from tui.agent.state.private_targets import PrivateTargets
    from tui.agent.state.probe_control import Control
    from tui.agent.state.rolling_snapshot import Snapshots

T = TypeVar("T", bound=Struct)
MOST_BODY = 1 << 16
"""Most bytes of a request's body."""
BODY_SECONDS = 10.0


@dataclass(slots=True)
class Agent:
    """The parts of the agent that requests use.

    `tokens` is True if clients need a token; `offsets` is True if addresses inside functions may be
    timed; `report` is the doctor's last report.
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
    """What the client may do."""
    return cast("Access", request.state.access)


def sight(request: Request) -> Sight:
    """The kind of client, which decides what it sees."""
    return cast("Sight", request.state.sight)


def view(request: Request) -> View:
    """The client's view of the data."""
    return context(request).views[sight(request)]


def answer(value: Struct | Mapping[str, Any], status: int = 200, **headers: str) -> Response:
    """A JSON response."""
    text = dumps(to_builtins(value) if isinstance(value, Struct) else value)
    return Response(text + "\n", status, headers, JSON)


def taken(kind: type[T], value: object) -> T:
    """A Struct of this type, from an object with attributes of the same names."""
    return kind(*[getattr(value, name) for name in kind.__struct_fields__])


async def body(request: Request, kind: type[T]) -> T:
    """The body as this type; raises Refused if it is too long, too slow or not JSON."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await _read(request)
    except TimeoutError:
        why = f"the body did not arrive within {BODY_SECONDS:g} seconds"
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


def query(request: Request, kind: type[T]) -> T:
    """The query parameters as this type; raises ProbeError for invalid ones."""
    pairs = request.query_params.multi_items()
    known, given = kind.__struct_fields__, dict(pairs)
    for name in given:
        if name not in known:
            fix = remedy(name[:40], known) if known else "leave it out"
            raise ProbeError(f"the address has an unknown parameter {shown(name)}", fix)
    if len(given) != len(pairs):
        raise ProbeError("a parameter is there twice", "give each once")
    return typed(given, kind, "the address", strict=False)
