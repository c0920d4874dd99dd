# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI 3.1 description of the interface, made from the operations' types."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from types import NoneType
from typing import Any

from msgspec import Struct
from msgspec.json import schema_components

import probes
from tui.agent.errors import JSON
from tui.agent.http.operations import Operation
from tui.agent.http.schemas import Error

Schema = dict[str, Any]
REFERENCE = "#/components/schemas/{name}"
ALWAYS = (400, 401, 403, 421, 422)
"""Error statuses that any request may have."""
WITH_BODY = (411, 413, 415)
ERRORS = {
    400: "what was sent is no HTTP or no JSON",
    401: "a token is needed",
    403: "this token, or page, may not do that",
    404: "there is no such thing",
    405: "method not allowed for this path",
    411: "the body does not say its length",
    413: "the body is too long",
    415: "the body is not called JSON",
    421: "the agent does not go by the name in Host",
    422: "it cannot be done as asked",
    429: "there are as many as there may be",
    503: "it cannot be done now",
}


class Types:
    """The JSON Schemas of all types that the operations use."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        kinds: list[Any] = [Error]
        for operation in operations:
            kinds += (operation.body, *operation.answers.values())
        # None stands for no content, a tuple for media types.
        kinds = [kind for kind in dict.fromkeys(kinds) if not isinstance(kind, tuple | NoneType)]
        schemas, self.components = schema_components(kinds, ref_template=REFERENCE)
        self._schemas = dict(zip(kinds, schemas, strict=True))

    def content(self, kind: Any) -> Schema:
        """A body's content: an object of this type, or text of one of these media types."""
        if isinstance(kind, tuple):
            return {media: {"schema": {"type": "string"}} for media in kind}
        return {JSON: {"schema": self._schemas[kind]}}


def _in_query(kind: type[Struct]) -> list[Schema]:
    """Query parameters, one for each member of this type."""
    members = schema_components([kind])[1][kind.__name__]
    return [
        {"name": name, "in": "query", "required": name in members["required"], "schema": schema}
        for name, schema in members["properties"].items()
    ]


def _responses(operation: Operation, types: Types) -> Schema:
    responses: Schema = {}
    for status, kind in operation.answers.items():
        response: Schema = {"description": HTTPStatus(status).phrase}
        if kind is not None:
            response["content"] = types.content(kind)
        if operation.location:
            response["headers"] = {"Location": {"schema": {"type": "string"}}}
        responses[str(status)] = response
    errors = {*ALWAYS, *operation.errors, *(WITH_BODY if operation.body else ())}
    for status in sorted(errors):
        responses[str(status)] = {"description": ERRORS[status], "content": types.content(Error)}
    return responses


def _described(operation: Operation, types: Types) -> Schema:
    summary = (operation.endpoint.__doc__ or "").partition("\n")[0].removesuffix(".")
    described: Schema = {
        "operationId": operation.name,
        "summary": summary,
        "responses": _responses(operation, types),
    }
    if parameters := _in_query(operation.query):
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = {"required": True, "content": types.content(operation.body)}
    if not operation.needs_token:
        described["security"] = []
    return described


def _in_path(path: str) -> list[Schema]:
    text = {"type": "string", "minLength": 1}
    return [
        {"name": name, "in": "path", "required": True, "schema": text}
        for name in re.findall(r"{(\w+)}", path)
    ]


def description(operations: Sequence[Operation], tokens: bool) -> bytes:
    """The description, for an agent with or without `tokens`."""
    types = Types(operations)
    paths: dict[str, Schema] = {}
    for operation in operations:
        path = paths.setdefault(operation.path, {})
        if parameters := _in_path(operation.path):
            path["parameters"] = parameters
        path[operation.method.lower()] = _described(operation, types)
    document: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "probetop",
            "version": probes.__version__,
            "description": "What the kernel is doing on this machine right now. Counts are of an "
            "interval, times nanoseconds; what is not known is null.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": types.components},
    }
    if tokens:
        scheme = {"type": "http", "scheme": "bearer"}
        document["components"]["securitySchemes"] = {"token": scheme}
        document["security"] = [{"token": []}]
    return json.dumps(document).encode("ascii") + b"\n"
