# SPDX-License-Identifier: Apache-2.0
"""The agent as an ASGI application: routes, access and error answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from msgspec import Struct
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from probes.core.errors import ProbeError
from tui.agent.errors import JSON, Refused, complain, error_body, status_of
from tui.agent.http.auth import Authorizer
from tui.agent.http.openapi import description
from tui.agent.http.operations import OPERATIONS, Operation
from tui.agent.http.request_context import Agent, answer, body, query

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Gate:
    """Lets requests through that `authorizer` allows, and adds headers to every answer."""

    def __init__(self, app: Starlette, authorizer: Authorizer) -> None:
        self._app = app
        self._authorizer = authorizer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        headers = Headers(scope=scope)
        started = complete = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started, complete
            complete = message["type"] == "http.response.body" and not message.get("more_body")
            if message["type"] == "http.response.start":
                started = True
                own = MutableHeaders(scope=message)
                for name, value in ALWAYS.items():
                    own.setdefault(name, value)
            await send(message)

        connection = scope["state"]["connection"]
        try:
            access = self._authorizer.check(
                scope["method"], scope["path"], scope["scheme"], headers, connection.peer_uid
            )
            scope["state"]["access"] = access
            scope["state"]["sight"] = self._authorizer.sight(access)
            connection.known = connection.known or self._authorizer.knows(access)
            await self._app(scope, receive, send_with_headers)
        except ProbeError as error:
            answer = _answered(error)
            if answer.status_code == 401 and connection.deny():
                answer.headers["Connection"] = "close"
            await answer(scope, receive, send_with_headers)
        except Exception as error:  # one failed request must not end the agent
            complain(f"{scope['method']} {scope['path'][:80]} failed: {error!r}")
            if not started:
                await _answered(_failure())(scope, receive, send_with_headers)
            elif not complete:
                connection.drop()


def _failure() -> Refused:
    return Refused(500, "the agent failed at this", "see what it says on standard error")


def _answered(error: ProbeError) -> Response:
    headers = error.headers if isinstance(error, Refused) else {}
    return Response(error_body(error), status_of(error), headers, JSON)


async def _on_failure(request: Request, error: Exception) -> Response:
    return _answered(_failure())


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProbeError)
    return _answered(error)


async def _on_http(request: Request, error: Exception) -> Response:
    """Answer an error of the router."""
    assert isinstance(error, HTTPException)
    why = {404: "unknown path", 405: "method not allowed for this path"}
    known = why.get(error.status_code, error.detail)
    return _answered(Refused(error.status_code, known, "see GET /openapi.json", error.headers))


def application(agent: Agent, authorizer: Authorizer) -> Gate:
    """Create the application."""
    paths: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = operation
    app = Starlette(
        routes=[
            Route(path, _by_method(methods), methods=[*methods]) for path, methods in paths.items()
        ],
        exception_handlers={
            ProbeError: _on_error,
            HTTPException: _on_http,
            Exception: _on_failure,
        },
    )
    app.router.redirect_slashes = False
    app.state.agent = agent
    app.state.description = description(OPERATIONS, agent.tokens)
    return Gate(app, authorizer)


def _by_method(methods: Mapping[str, Operation]) -> Callable[[Request], Awaitable[ASGIApp]]:
    async def endpoint(request: Request) -> ASGIApp:
        name = "GET" if request.method == "HEAD" else request.method
        return await _carry_out(methods[name], request)

    return endpoint


async def _carry_out(operation: Operation, request: Request) -> ASGIApp:
    """Decode the request, call the endpoint, and encode its result."""
    parameters = query(request, operation.query)
    given = [parameters] if operation.query.__struct_fields__ else []
    if operation.body is not None:
        given.append(await body(request, operation.body))
    value = await operation.endpoint(request, *given)
    if isinstance(value, Struct | Mapping):
        return answer(value, next(iter(operation.answers)))
    return cast("ASGIApp", value)
