# SPDX-License-Identifier: Apache-2.0
"""The table of all operations: method, path, types of request and answer, and function.

`api` decodes requests by it, and `openapi` describes it. The first line of a function's docstring
is the operation's summary.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from tui.agent.http import routes_control as control
from tui.agent.http import routes_data as data
from tui.agent.http import schemas
from tui.agent.http.frame_streams import EVENTS, RECORDS

Object = dict[str, Any]


class Operation(NamedTuple):
    """One method of one path.

    `name` is its operationId. `answers` maps each status of success, the usual one first, to a type
    of JSON, to the media types of a text, or to None for no content. `endpoint` is called with the
    request, then with the query parameters (`query`) and the `body` as these types, if there are
    any. `errors` are the error statuses beyond the common ones. `location` is True if the answer's
    Location header names the created object.
    """

    method: str
    path: str
    endpoint: Callable[..., Awaitable[Any]]
    name: str
    answers: Mapping[int, Any]
    query: type[Struct] = schemas.Message
    body: type[Struct] | None = None
    errors: tuple[int, ...] = ()
    needs_token: bool = True
    location: bool = False


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "GET", "/v1/probes", control.get_probes, "probes", {200: schemas.Probes}, errors=(503,)
    ),
    Operation(
        "GET", "/v1/probes/{name}", control.get_probe, "probe", {200: schemas.Probe},
        errors=(404, 503),
    ),
    Operation(
        "PUT", "/v1/probes/{name}", control.put_probe, "setProbe", {200: schemas.Probe},
        body=schemas.ProbeRequest, errors=(404, 503),
    ),
    Operation(
        "GET", "/v1/latency/targets", control.get_targets, "targets", {200: schemas.Targets},
        errors=(503,),
    ),
    Operation(
        "POST", "/v1/latency/targets", control.post_target, "addTarget", {201: schemas.Target},
        body=schemas.TargetRequest, errors=(429, 503),
    ),
    Operation(
        "DELETE", "/v1/latency/targets", control.delete_target, "removeTarget", {204: None},
        query=schemas.TargetQuery, errors=(404, 503),
    ),
    Operation("GET", "/v1/filters", control.get_filters, "filters", {200: schemas.Filters}),
    Operation(
        "PUT", "/v1/filters", control.put_filters, "setFilters", {200: schemas.Filters},
        body=schemas.FilterRequest,
    ),
    Operation("GET", "/v1/interval", control.get_interval, "interval", {200: schemas.Interval}),
    Operation(
        "PUT", "/v1/interval", control.put_interval, "setInterval", {200: schemas.Interval},
        body=schemas.Interval,
    ),
    Operation(
        "GET", "/v1/search", control.get_search, "search", {200: schemas.Found},
        query=schemas.SearchQuery, errors=(503,),
    ),
    Operation(
        "GET", "/v1/frames", data.get_frames, "frames", {200: (EVENTS, RECORDS)}, errors=(429,)
    ),
    Operation(
        "GET", "/v1/snapshot.json", data.get_snapshot_json, "snapshot", {200: Object},
        query=schemas.SnapshotQuery, errors=(429, 503),
    ),
    Operation(
        "GET", "/v1/snapshot.html", data.get_snapshot_html, "page", {200: ("text/html",)},
        query=schemas.SnapshotQuery, errors=(429, 503),
    ),
    Operation("GET", "/v1/runs", data.get_runs, "runs", {200: schemas.Runs}),
    Operation(
        "POST", "/v1/runs", data.post_run, "beginRun", {201: schemas.Run},
        body=schemas.RunRequest, errors=(429,), location=True,
    ),
    Operation("GET", "/v1/runs/{id}", data.get_run, "run", {200: schemas.Run}, errors=(404,)),
    Operation(
        "DELETE", "/v1/runs/{id}", data.delete_run, "endRun", {200: schemas.Run, 204: None},
        errors=(404,),
    ),
    Operation(
        "GET", "/v1/doctor", data.get_doctor, "doctor", {200: schemas.Report}, errors=(503,)
    ),
    Operation(
        "GET", "/metrics", data.get_metrics, "metrics",
        {200: ("text/plain", "application/openmetrics-text")}, errors=(503,),
    ),
    Operation(
        "GET", "/healthz", data.get_health, "health", {200: schemas.Health}, errors=(503,),
        needs_token=False,
    ),
    Operation("GET", "/openapi.json", data.get_description, "description", {200: Object}),
)  # fmt: skip
