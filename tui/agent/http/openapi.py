# SPDX-License-Identifier: Apache-2.0
"""The description of the interface that is served: OpenAPI 3.1."""

from __future__ import annotations

import json
from typing import Any

import probes
from tui.agent.http.frame_streams import EVENTS, RECORDS
from tui.agent.http.schemas import SCHEMAS, Schema, given, real, ref
from tui.agent.state.rolling_snapshot import LONGEST, SECONDS

ALWAYS = (401, 403, 421)
"""What any request that is not let in may be answered with, beside bad requests."""
ERRORS = {
    400: "what was sent is no HTTP or no JSON",
    401: "a token is needed",
    403: "this token, or page, may not do that",
    404: "there is no such thing",
    405: "this address has other methods",
    411: "the body does not say its length",
    413: "the body is too long",
    415: "the body is not called JSON",
    421: "the agent does not go by the name in Host",
    422: "it cannot be done as asked",
    429: "there are as many as there may be",
    503: "it cannot be done now",
}
JSON = "application/json"


def _error(status: int) -> Schema:
    return {"description": ERRORS[status], "content": {JSON: {"schema": ref("Error")}}}


def _operation(
    name: str,
    words: str,
    answers: dict[int, Schema],
    *,
    takes: str | None = None,
    query: tuple[Schema, ...] = (),
    errors: tuple[int, ...] = (),
    needs_token: bool = True,
) -> Schema:
    refused = (400, 422, *ALWAYS, *errors, *((411, 413, 415) if takes else ()))
    responses = {str(status): answer for status, answer in answers.items()}
    responses |= {str(status): _error(status) for status in sorted(set(refused))}
    operation: Schema = {"operationId": name, "summary": words, "responses": responses}
    if query:
        operation["parameters"] = list(query)
    if takes:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": ref(takes)}}}
    if not needs_token:
        operation["security"] = []
    return operation


def _is(words: str, schema: str, kind: str = JSON, **headers: Schema) -> Schema:
    answer: Schema = {"description": words, "content": {kind: {"schema": ref(schema)}}}
    if headers:
        answer["headers"] = headers
    return answer


def _text(words: str, *kinds: str) -> Schema:
    return {
        "description": words,
        "content": {kind: {"schema": {"type": "string"}} for kind in kinds},
    }


def _parameter(name: str, where: str, schema: Schema, needed: bool) -> Schema:
    return {"name": name, "in": where, "required": needed, "schema": schema}


NOTHING: Schema = {"description": "done"}
NAME = _parameter("name", "path", {"type": "string", "minLength": 1}, True)
ID = _parameter("id", "path", {"type": "string", "minLength": 1}, True)
LAST = _parameter(
    "seconds",
    "query",
    real(f"how much of the last minute (default {SECONDS:g})", minimum=1, maximum=LONGEST),
    False,
)

PATHS: dict[str, dict[str, Schema]] = {
    "/v1/probes": {
        "get": _operation("probes", "All probes", {200: _is("all", "Probes")}, errors=(503,))
    },
    "/v1/probes/{name}": {
        "parameters": [NAME],  # type: ignore[dict-item]
        "get": _operation("probe", "A probe", {200: _is("it", "Probe")}, errors=(404, 503)),
        "put": _operation(
            "setProbe",
            "Switch a probe, or change its options; answers when that has come about",
            {200: _is("as it is then", "Probe")},
            takes="ProbeWish",
            errors=(404, 503),
        ),
    },
    "/v1/latency/targets": {
        "get": _operation("targets", "What is timed", {200: _is("all", "Targets")}, errors=(503,)),
        "post": _operation(
            "addTarget",
            "Time a function, or the time between events",
            {201: _is("it is timed, or begins to be", "Target")},
            takes="TargetWish",
            errors=(429, 503),
        ),
        "delete": _operation(
            "removeTarget",
            "Time it no more",
            {204: NOTHING},
            query=(_parameter("spec", "query", given(minLength=1), True),),
            errors=(404, 503),
        ),
    },
    "/v1/filters": {
        "get": _operation("filters", "What is counted", {200: _is("they", "Filters")}),
        "put": _operation(
            "setFilters", "Count this only", {200: _is("they", "Filters")}, takes="FilterWish"
        ),
    },
    "/v1/interval": {
        "get": _operation("interval", "Time between frames", {200: _is("it", "Interval")}),
        "put": _operation(
            "setInterval", "Another one", {200: _is("it", "Interval")}, takes="Interval"
        ),
    },
    "/v1/search": {
        "get": _operation(
            "search",
            "What could be timed here",
            {200: _is("the best first", "Found")},
            query=(_parameter("q", "query", given(), True),),
            errors=(503,),
        )
    },
    "/v1/frames": {
        "get": _operation(
            "frames",
            "What `probetop stream` prints, as it happens, until either side ends it",
            {200: _text("one event an interval; or records, if asked for", EVENTS, RECORDS)},
            errors=(429,),
        )
    },
    "/v1/snapshot.json": {
        "get": _operation(
            "snapshot",
            "The last seconds, at once",
            {200: _is("them, or as many as there are", "Snapshot")},
            query=(LAST,),
            errors=(429, 503),
        )
    },
    "/v1/snapshot.html": {
        "get": _operation(
            "page",
            "The same as a page to keep",
            {200: _text("a page that needs nothing else", "text/html")},
            query=(LAST,),
            errors=(429, 503),
        )
    },
    "/v1/runs": {
        "get": _operation("runs", "Measurements", {200: _is("all that are kept", "Runs")}),
        "post": _operation(
            "beginRun",
            "Measure for some seconds",
            {201: _is("it goes on", "Run", Location={"schema": {"type": "string"}})},
            takes="RunWish",
            errors=(429,),
        ),
    },
    "/v1/runs/{id}": {
        "parameters": [ID],  # type: ignore[dict-item]
        "get": _operation("run", "A measurement", {200: _is("it", "Run")}, errors=(404,)),
        "delete": _operation(
            "endRun",
            "End it early; forget one that has ended",
            {200: _is("it has ended", "Run"), 204: {"description": "it is forgotten"}},
            errors=(404,),
        ),
    },
    "/v1/doctor": {
        "get": _operation(
            "doctor",
            "What this machine allows, and how to mend what it does not",
            {200: _is("it was tried", "Report")},
            errors=(503,),
        )
    },
    "/metrics": {
        "get": _operation(
            "metrics",
            "Numbers for Prometheus",
            {200: _text("in the format asked for", "text/plain", "application/openmetrics-text")},
            errors=(503,),
        )
    },
    "/healthz": {
        "get": _operation(
            "health",
            "Whether frames come",
            {200: _is("they do", "Health")},
            errors=(503,),
            needs_token=False,
        )
    },
    "/openapi.json": {
        "get": _operation(
            "description",
            "This description",
            {200: {"description": "it", "content": {JSON: {"schema": {"type": "object"}}}}},
        )
    },
}


def description(tokens: bool) -> bytes:
    """The description, of an agent that asks for `tokens` or of one that does not."""
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "probetop",
            "version": probes.__version__,
            "description": "What the kernel is doing on this machine right now. Counts are of an "
            "interval, times nanoseconds; what is not known is null.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": PATHS,
        "components": {"schemas": SCHEMAS},
    }
    if tokens:
        scheme = {"type": "http", "scheme": "bearer"}
        document["components"]["securitySchemes"] = {"token": scheme}
        document["security"] = [{"token": []}]
    return json.dumps(document).encode("ascii") + b"\n"
