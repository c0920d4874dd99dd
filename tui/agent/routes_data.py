# SPDX-License-Identifier: Apache-2.0
"""Requests for data: frames, snapshots, runs, metrics, the doctor, and whether all is well."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from probes.base import ProbeError
from probes.samples import NO_FILTERS
from tui.agent.answers import access, answer, body, context, number, query, sight, view
from tui.agent.bodies import RunWish
from tui.agent.errors import JSON, Refused
from tui.agent.frames import EVENTS, RECORDS, FrameResponse
from tui.agent.openapi import description
from tui.agent.routes_control import target_text
from tui.agent.runs import Run, run_object, with_result
from tui.agent.snapshots import LONGEST as LONGEST_SNAPSHOT
from tui.agent.snapshots import SECONDS
from tui.settings.validators import check_probes

PAGE_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page itself has a stricter one, with the hashes of its script and style."""
STALE_SECONDS = 10.0
"""How much later than its time a Frame may come before something is wrong."""


async def get_frames(request: Request) -> ASGIApp:
    """Frames as they come."""
    query(request)
    agent = context(request)
    records = RECORDS in request.headers.get("accept", "").lower()
    kind = RECORDS if records else EVENTS
    if request.method == "HEAD":
        return Response(media_type=kind)
    outlet = agent.streams.open(records, sight(request))
    return FrameResponse(agent.streams, agent.control, outlet, kind)


async def get_snapshot_json(request: Request) -> Response:
    """The last seconds as JSON."""
    agent, seconds = context(request), _seconds(request)
    agent.control.touch()
    return Response(await agent.snapshots.json(seconds, view(request)), media_type=JSON)


async def get_snapshot_html(request: Request) -> Response:
    """The last seconds as a page."""
    agent, seconds = context(request), _seconds(request)
    agent.control.touch()
    page = await agent.snapshots.html(seconds, view(request))
    headers = {"Content-Security-Policy": PAGE_POLICY}
    return Response(page, headers=headers, media_type="text/html")


def _seconds(request: Request) -> float:
    fields = query(request, ("seconds",))
    return number(fields, "seconds", SECONDS, 1.0, LONGEST_SNAPSHOT)


async def post_run(request: Request) -> Response:
    """Begin to measure."""
    query(request)
    agent = context(request)
    wish = await body(request, RunWish)
    probes, targets = await _wanted(request, wish)
    filters = wish.filters.checked() if wish.filters is not None else NO_FILTERS
    run = agent.runs.begin(
        wish.seconds, probes, targets, filters if filters != NO_FILTERS else None
    )
    location = {"Location": f"/v1/runs/{run.id}"}
    return Response(with_result(run, view(request)), 201, location, JSON)


async def _wanted(request: Request, wish: RunWish) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The probes and targets of a run; raises ProbeError."""
    targets = [await target_text(request, spec) for spec in wish.targets or ()]
    names = wish.probes
    if names is None:
        on = context(request).control.wishes.wanted
        names = [] if targets else [name for name, wanted in on.items() if wanted]
    if targets and "latency" not in names:
        names.append("latency")
    if not names:
        raise ProbeError("there is nothing to measure", "name probes or targets")
    return check_probes(names), tuple(dict.fromkeys(targets))


async def get_runs(request: Request) -> Response:
    """All runs, without their results."""
    query(request)
    seen = view(request)
    return answer({"runs": [run_object(run, seen) for run in context(request).runs.all()]})


async def get_run(request: Request) -> Response:
    """One run, with its result."""
    query(request)
    return _run(request, context(request).runs.get(request.path_params["id"]))


async def delete_run(request: Request) -> Response:
    """Stop one that goes on; forget one that has ended."""
    query(request)
    runs = context(request).runs
    run = runs.get(request.path_params["id"])
    if run.state == "running":
        await runs.stop(run)
        return _run(request, run)
    runs.forget(run)
    return Response(status_code=204)


def _run(request: Request, run: Run) -> Response:
    return Response(with_result(run, view(request)), media_type=JSON)


async def get_metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    query(request)
    agent = context(request)
    agent.control.touch()
    text, kind = agent.metrics.render(request.headers.get("accept", ""), sight(request))
    return Response(text, headers={"Content-Type": kind})


async def get_doctor(request: Request) -> Response:
    """What this machine allows, tried anew for those who control; others get the last report.

    Trying attaches programs as root, and a request to read starts nothing that does.
    """
    query(request)
    agent = context(request)
    if access(request) == "control":
        agent.report = await agent.control.help("doctor")
    elif agent.report is None:
        why = "nothing has been tried yet, and that takes a control token"
        raise Refused(403, why, "use one, or run `probetop doctor` on the machine")
    return answer(agent.report)


async def get_health(request: Request) -> Response:
    """Whether Frames come."""
    query(request)
    agent = context(request)
    frame = agent.hub.frame
    age = time.monotonic() - frame.mono if frame is not None else 0.0
    late = frame is not None and age > 2 * frame.interval + STALE_SECONDS
    if agent.hub.ended is not None or late:
        # Anybody may ask for this, and why it ended may speak of files.
        raise Refused(503, "no frames come any more", "start it again")
    return answer({"ok": True})


async def get_description(request: Request) -> Response:
    """This interface, in the words of OpenAPI."""
    query(request)
    return Response(description(context(request).tokens), media_type=JSON)
