# SPDX-License-Identifier: Apache-2.0
"""The agent as an ASGI application: routes, who may come in, and how errors are answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from probes.base import ProbeError
from tui.agent.errors import JSON, Refused, complain, error_body, status_of
from tui.agent.http import routes_control as control
from tui.agent.http import routes_data as data
from tui.agent.http.auth import Guard
from tui.agent.http.request_context import Agent

ROUTES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("GET", "/v1/probes", control.get_probes),
    ("GET", "/v1/probes/{name}", control.get_probe),
    ("PUT", "/v1/probes/{name}", control.put_probe),
    ("GET", "/v1/latency/targets", control.get_targets),
    ("POST", "/v1/latency/targets", control.post_target),
    ("DELETE", "/v1/latency/targets", control.delete_target),
    ("GET", "/v1/filters", control.get_filters),
    ("PUT", "/v1/filters", control.put_filters),
    ("GET", "/v1/interval", control.get_interval),
    ("PUT", "/v1/interval", control.put_interval),
    ("GET", "/v1/search", control.get_search),
    ("GET", "/v1/frames", data.get_frames),
    ("GET", "/v1/snapshot.json", data.get_snapshot_json),
    ("GET", "/v1/snapshot.html", data.get_snapshot_html),
    ("GET", "/v1/runs", data.get_runs),
    ("POST", "/v1/runs", data.post_run),
    ("GET", "/v1/runs/{id}", data.get_run),
    ("DELETE", "/v1/runs/{id}", data.delete_run),
    ("GET", "/v1/doctor", data.get_doctor),
    ("GET", "/metrics", data.get_metrics),
    ("GET", "/healthz", data.get_health),
    ("GET", "/openapi.json", data.get_description),
)
"""Method, path and who answers; `tui.agent.http.openapi` describes the same."""

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Gate:
    """Lets in what `guard` allows, and gives every answer its headers."""

    def __init__(self, app: Starlette, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
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
            access = self._guard.check(
                scope["method"], scope["path"], scope["scheme"], headers, connection.peer_uid
            )
            scope["state"]["access"] = access
            scope["state"]["sight"] = self._guard.sight(access)
            connection.known = connection.known or self._guard.knows(access)
            await self._app(scope, receive, send_with_headers)
        except ProbeError as error:
            answer = _answered(error)
            if answer.status_code == 401 and connection.deny():
                answer.headers["Connection"] = "close"
            await answer(scope, receive, send_with_headers)
        except Exception as error:  # one request's failure is not the agent's
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
    """What the router says."""
    assert isinstance(error, HTTPException)
    why = {404: "there is nothing at this address", 405: "this address has other methods"}
    known = why.get(error.status_code, error.detail)
    return _answered(Refused(error.status_code, known, "see GET /openapi.json", error.headers))


def application(agent: Agent, guard: Guard) -> Gate:
    """The application."""
    paths: dict[str, dict[str, Callable[..., Any]]] = {}
    for method, path, endpoint in ROUTES:
        paths.setdefault(path, {})[method] = endpoint
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
    return Gate(app, guard)


def _by_method(methods: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    async def endpoint(request: Request) -> Any:
        name = "GET" if request.method == "HEAD" else request.method
        return await methods[name](request)

    return endpoint
