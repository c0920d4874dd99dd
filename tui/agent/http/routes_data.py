# SPDX-License-Identifier: Apache-2.0
"""Requests for data: frames, snapshots, runs, metrics, the doctor and the health."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from msgspec import to_builtins
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from probes.core.errors import ProbeError
from probes.core.frame import NO_FILTERS
from probes.latency.sample import Target
from probes.report.stream import dumps
from tui.agent.errors import JSON, Refused
from tui.agent.http import schemas
from tui.agent.http.frame_streams import EVENTS, RECORDS, FrameResponse
from tui.agent.http.request_context import access, context, sight, taken, view
from tui.agent.http.routes_control import target_text
from tui.agent.state.client_view import View
from tui.agent.state.measurements import Run
from tui.settings.validators import check_probes

PAGE_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page itself has a stricter policy, with the hashes of its script and style."""
STALE_SECONDS = 10.0
"""Seconds that a Frame may be late before the agent is unhealthy."""


async def get_frames(request: Request) -> ASGIApp:
    """Stream Frames as they come, until either side ends it: one event an interval, or records."""
    agent = context(request)
    records = RECORDS in request.headers.get("accept", "").lower()
    kind = RECORDS if records else EVENTS
    if request.method == "HEAD":
        return Response(media_type=kind)
    outlet = agent.streams.open(records, sight(request))
    return FrameResponse(agent.streams, agent.control, outlet, kind)


async def get_snapshot_json(request: Request, query: schemas.SnapshotQuery) -> Response:
    """Show the last seconds."""
    agent = context(request)
    agent.control.touch()
    return Response(await agent.snapshots.json(query.seconds, view(request)), media_type=JSON)


async def get_snapshot_html(request: Request, query: schemas.SnapshotQuery) -> Response:
    """Show the last seconds as a page that needs no other file."""
    agent = context(request)
    agent.control.touch()
    page = await agent.snapshots.html(query.seconds, view(request))
    headers = {"Content-Security-Policy": PAGE_POLICY}
    return Response(page, headers=headers, media_type="text/html")


async def post_run(request: Request, body: schemas.RunRequest) -> Response:
    """Measure for some seconds."""
    agent = context(request)
    probes, targets = await _wanted(request, body)
    filters = body.filters.checked() if body.filters is not None else NO_FILTERS
    run = agent.runs.begin(
        body.seconds, probes, targets, filters if filters != NO_FILTERS else None
    )
    location = {"Location": f"/v1/runs/{run.id}"}
    return Response(_with_result(run, view(request)), 201, location, JSON)


async def _wanted(
    request: Request, body: schemas.RunRequest
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The probes and targets of a run; raises ProbeError."""
    targets = [await target_text(request, spec) for spec in body.targets or ()]
    names = body.probes
    if names is None:
        on = context(request).control.demand.wanted
        names = [] if targets else [name for name, wanted in on.items() if wanted]
    if targets and "latency" not in names:
        names.append("latency")
    if not names:
        raise ProbeError("there is nothing to measure", "name probes or targets")
    return check_probes(names), tuple(dict.fromkeys(targets))


async def get_runs(request: Request) -> schemas.Runs:
    """Show all measurements, without their results."""
    seen = view(request)
    return schemas.Runs([_run_head(run, seen) for run in context(request).runs.all()])


async def get_run(request: Request) -> Response:
    """Show a measurement with its result."""
    run = context(request).runs.get(request.path_params["id"])
    return Response(_with_result(run, view(request)), media_type=JSON)


async def delete_run(request: Request) -> Response:
    """End a measurement that runs; forget one that has ended."""
    runs = context(request).runs
    run = runs.get(request.path_params["id"])
    if run.state == "running":
        await runs.stop(run)
        return Response(_with_result(run, view(request)), media_type=JSON)
    runs.forget(run)
    return Response(status_code=204)


def _run_head(run: Run, view: View) -> schemas.RunHead:
    """A measurement in the client's view, without its result."""
    filters = run.filters
    return schemas.RunHead(
        id=run.id,
        state=run.state,
        seconds=run.seconds,
        probes=list(run.probes),
        targets=[view.spec(spec) for spec in run.targets],
        filters=taken(schemas.Filters, filters) if filters is not None else None,
        created=run.created,
        began=run.began,
        ended=run.ended if run.state != "running" else None,
        problems=[_problem(run, view, **problem) for problem in run.problems],
    )


def _problem(run: Run, view: View, what: str, why: str, fix: str) -> schemas.Problem:
    """A failed probe or target in the client's view."""
    if what in run.targets:
        seen = view.target(Target(spec=what, state="failed", why=why, fix=fix))
        return schemas.Problem(seen.spec, seen.why or "", seen.fix or "")
    return schemas.Problem(what, view.words(why) or "", view.words(fix) or "")


def _with_result(run: Run, view: View) -> bytes:
    """The JSON of a measurement with its result, which is JSON already."""
    result = run.result_of(view)
    head = dumps(to_builtins(_run_head(run, view))).encode("ascii")
    return head[:-1] + b',"result":' + (b"null" if result is None else result) + b"}\n"


async def get_metrics(request: Request) -> Response:
    """Show counters for Prometheus, in the format asked for."""
    agent = context(request)
    agent.control.touch()
    text, kind = agent.metrics.render(request.headers.get("accept", ""), sight(request))
    return Response(text, headers={"Content-Type": kind})


async def get_doctor(request: Request) -> Mapping[str, Any]:
    """Show what this machine allows, and how to mend what it does not.

    It is tried anew for those who control; others get the last report, for to try attaches
    programs as root, and a request to read starts nothing that does.
    """
    agent = context(request)
    if access(request) == "control":
        agent.report = await agent.control.help("doctor")
    elif agent.report is None:
        why = "no report exists yet; creating one needs a control token"
        raise Refused(403, why, "use one, or run `probetop doctor` on the machine")
    return agent.report


async def get_health(request: Request) -> schemas.Health:
    """Show that Frames come."""
    agent = context(request)
    frame = agent.hub.frame
    age = time.monotonic() - frame.mono if frame is not None else 0.0
    late = frame is not None and age > 2 * frame.interval + STALE_SECONDS
    if agent.hub.ended is not None or late:
        # The answer is public, but the reason of the end may name files.
        raise Refused(503, "no frames come any more", "start it again")
    return schemas.Health(ok=True)


async def get_description(request: Request) -> Response:
    """Show this description."""
    return Response(request.app.state.description, media_type=JSON)
