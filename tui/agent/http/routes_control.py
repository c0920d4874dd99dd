# SPDX-License-Identifier: Apache-2.0
"""Requests about probes, targets, filters, the interval, and the search for targets."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from probes.core.errors import ProbeError
from probes.core.sample import NO_COST
from probes.live.probe_state import Standing
from probes.symbols import target_spec
from tui.agent.errors import Refused
from tui.agent.http import schemas
from tui.agent.http.request_context import context, taken, view
from tui.settings.decoding import MOST_TARGETS
from tui.settings.validators import shown

OWN = ("latency",)
"""Probes with options that are lists, which several clients change."""


def probe_answer(request: Request, name: str, standing: Standing) -> schemas.Probe:
    """A probe's present state, with its part of the last Frame."""
    agent = context(request)
    frame = agent.hub.frame
    sample = frame.samples.get(name) if frame is not None else None
    options, words, seen = dict(agent.control.options[name]), _all, view(request)
    if name in OWN:
        options = {"targets": [seen.spec(spec) for spec in standing.targets]}
        words = seen.words
    return schemas.Probe(
        name=name,
        state=standing.state,
        wanted=agent.control.demand.wanted[name],
        why=words(standing.why),
        fix=words(standing.fix),
        given_up=words(standing.given_up),
        lost=sample.lost if sample is not None else 0,
        cost=taken(schemas.Cost, sample.cost if sample is not None else NO_COST),
        options={
            key: list(value) if isinstance(value, tuple) else value
            for key, value in options.items()
        },
    )


def _all(text: str | None) -> str | None:
    """The text without restrictions, for any reader."""
    return text


async def target_text(request: Request, text: str) -> str:
    """Return a target in its normal form if this agent may time it; raises ProbeError.

    Afterwards it is known what other clients may see of the target.

    A breakpoint inside a function corrupts the program if it is not at the first byte of an
    instruction, so such targets need an agent that was started with --allow-offsets.
    """
    spec = target_spec.parse(text)
    if spec.offset is not None and not context(request).offsets:
        why = f"{shown(spec.text)} is inside a function"
        raise Refused(403, why, "name a function, or start the agent with --allow-offsets")
    await context(request).private.learn([spec.text])
    return spec.text


async def get_probes(request: Request) -> schemas.Probes:
    """Show all probes."""
    agent = context(request)
    standings = await agent.control.standings()
    budget = agent.hub.frame.budget if agent.hub.frame is not None else None
    return schemas.Probes(
        interval=agent.control.interval,
        budget=taken(schemas.Budget, budget) if budget is not None else None,
        watched=agent.control.watched,
        probes=[probe_answer(request, name, standing) for name, standing in standings.items()],
    )


async def get_probe(request: Request) -> schemas.Probe:
    """Show a probe."""
    control = context(request).control
    name = control.known(request.path_params["name"])
    return probe_answer(request, name, (await control.standings())[name])


async def put_probe(request: Request, body: schemas.ProbeRequest) -> schemas.Probe:
    """Switch a probe or change its options; the answer waits for the effect."""
    control = context(request).control
    name = control.known(request.path_params["name"])
    options = body.options.given() if body.options is not None else {}
    control.check_options(name, options)
    for spec in options.get("targets", ()):
        context(request).runs.keep(await target_text(request, spec))
    async with control.lock:
        control.set_options(name, options)
        if body.on is not None:
            control.switch(name, body.on)
        standing = await control.settled(name)
    return probe_answer(request, name, standing)


async def get_targets(request: Request) -> schemas.Targets:
    """Show all targets."""
    targets = view(request).targets(await context(request).control.targets())
    return schemas.Targets([taken(schemas.Target, target) for target in targets.values()])


async def post_target(request: Request, body: schemas.TargetRequest) -> schemas.Target:
    """Time a function, or the time between two events."""
    control = context(request).control
    spec = await target_text(request, body.spec)
    control.touch()
    async with control.lock:
        if body.follow and spec in await control.targets():
            return taken(schemas.Target, await control.follow_target(spec))
        if context(request).runs.keep(spec) and spec in await control.targets():
            return taken(schemas.Target, (await control.targets())[spec])
        if len(await control.targets()) >= MOST_TARGETS:
            raise Refused(429, f"{MOST_TARGETS} targets at once are the most", "remove some")
        if not control.attached()["latency"]:
            control.switch("latency", True)
            await control.settled("latency")
        target = await control.add_target(spec)
    return taken(schemas.Target, target)


async def delete_target(request: Request, query: schemas.TargetQuery) -> Response:
    """Stop timing a target."""
    control = context(request).control
    try:
        normal = target_spec.parse(query.spec).text
    except ProbeError:
        normal = query.spec
    async with control.lock:
        context(request).runs.keep(normal)
        if not await control.remove_target(normal):
            why = f"{shown(query.spec)} is not traced"
            raise Refused(404, why, "see GET /v1/latency/targets")
    return Response(status_code=204)


async def get_filters(request: Request) -> schemas.Filters:
    """Show the filters."""
    return taken(schemas.Filters, context(request).control.filters)


async def put_filters(request: Request, body: schemas.FilterRequest) -> schemas.Filters:
    """Set the filters."""
    control = context(request).control
    control.set_filters(body.checked())
    return taken(schemas.Filters, control.filters)


async def get_interval(request: Request) -> schemas.Interval:
    """Show the time between Frames."""
    return schemas.Interval(context(request).control.interval)


async def put_interval(request: Request, body: schemas.Interval) -> schemas.Interval:
    """Set the time between Frames."""
    context(request).control.set_interval(body.seconds)
    return body


async def get_search(request: Request, query: schemas.SearchQuery) -> schemas.Found:
    """Search what can be timed on this machine."""
    found = await context(request).control.search(query.q)
    return schemas.Found([taken(schemas.FoundTarget, one) for one in found])
