# SPDX-License-Identifier: Apache-2.0
"""Requests about what is on: probes, targets, filters, the interval, and what could be traced."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from probes import specs
from probes.base import ProbeError
from probes.samples import NO_COST, Target
from probes.slot import Standing
from tui.agent.answers import answer, body, context, query, view
from tui.agent.bodies import FilterWish, IntervalWish, ProbeWish, TargetWish
from tui.agent.errors import Refused
from tui.settings.decoding import MOST_TARGETS
from tui.settings.validators import shown

OWN = ("latency",)
"""Probes some of whose options are lists that others change too."""


def probe_object(request: Request, name: str, standing: Standing) -> dict[str, Any]:
    """PROBE: where it stands now, and what the last Frame knows of it."""
    agent = context(request)
    frame = agent.hub.frame
    sample = frame.samples.get(name) if frame is not None else None
    options, words, seen = dict(agent.control.options[name]), _all, view(request)
    if name in OWN:
        options = {"targets": [seen.spec(spec) for spec in standing.targets]}
        words = seen.words
    return {
        "name": name,
        "state": standing.state,
        "wanted": agent.control.wishes.wanted[name],
        "why": words(standing.why),
        "fix": words(standing.fix),
        "given_up": words(standing.given_up),
        "lost": sample.lost if sample is not None else 0,
        "cost": (sample.cost if sample is not None else NO_COST)._asdict(),
        "options": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in options.items()
        },
    }


def _all(text: str | None) -> str | None:
    """Words that everybody may read."""
    return text


def target_object(target: Target) -> dict[str, Any]:
    """TARGET: what it is and whether it is traced; what it counts is in frames."""
    return {
        "spec": target.spec,
        "mechanism": target.mechanism,
        "state": target.state,
        "why": target.why,
        "fix": target.fix,
        "given_up": target.given_up,
        "functions": target.functions,
        "counts_only": target.counts_only,
        "unit": target.unit,
        "floor": target.floor,
        "file": target.file,
    }


async def target_text(request: Request, text: str) -> str:
    """A target in its normal form, if this agent may time it; raises ProbeError.

    It is known by then what others may see of it.

    A breakpoint inside of a function changes what a program does where it is not the first byte
    of an instruction, so that is for an agent that was started with --allow-offsets.
    """
    spec = specs.parse(text)
    if spec.offset is not None and not context(request).offsets:
        why = f"{shown(spec.text)} is a place inside of a function"
        raise Refused(403, why, "name a function, or start the agent with --allow-offsets")
    await context(request).private.learn([spec.text])
    return spec.text


async def get_probes(request: Request) -> Response:
    """All probes."""
    query(request)
    agent = context(request)
    standings = await agent.control.standings()
    budget = agent.hub.frame.budget if agent.hub.frame is not None else None
    return answer(
        {
            "interval": agent.control.interval,
            "budget": budget._asdict() if budget is not None else None,
            "watched": agent.control.watched,
            "probes": [probe_object(request, name, s) for name, s in standings.items()],
        }
    )


async def get_probe(request: Request) -> Response:
    """One probe."""
    query(request)
    control = context(request).control
    name = control.known(request.path_params["name"])
    return answer(probe_object(request, name, (await control.standings())[name]))


async def put_probe(request: Request) -> Response:
    """Switch it, change its options, and wait for what comes of it."""
    query(request)
    control = context(request).control
    name = control.known(request.path_params["name"])
    wish = await body(request, ProbeWish)
    options = wish.options.given() if wish.options is not None else {}
    control.check_options(name, options)
    for spec in options.get("targets", ()):
        context(request).runs.keep(await target_text(request, spec))
    async with control.lock:
        control.set_options(name, options)
        if wish.on is not None:
            control.switch(name, wish.on)
        standing = await control.settled(name)
    return answer(probe_object(request, name, standing))


async def get_targets(request: Request) -> Response:
    """What is timed."""
    query(request)
    targets = view(request).targets(await context(request).control.targets())
    return answer({"targets": [target_object(target) for target in targets.values()]})


async def post_target(request: Request) -> Response:
    """Time one more."""
    query(request)
    control = context(request).control
    wish = await body(request, TargetWish)
    spec = await target_text(request, wish.spec)
    control.touch()
    async with control.lock:
        if wish.follow and spec in await control.targets():
            return answer(target_object(await control.follow_target(spec)), 201)
        if context(request).runs.keep(spec) and spec in await control.targets():
            return answer(target_object((await control.targets())[spec]), 201)
        if len(await control.targets()) >= MOST_TARGETS:
            raise Refused(429, f"{MOST_TARGETS} targets at once are the most", "remove some")
        if not control.attached()["latency"]:
            control.switch("latency", True)
            await control.settled("latency")
        target = await control.add_target(spec)
    return answer(target_object(target), 201)


async def delete_target(request: Request) -> Response:
    """Time one no more."""
    spec = query(request, ("spec",)).needed("spec")
    control = context(request).control
    try:
        normal = specs.parse(spec).text
    except ProbeError:
        normal = spec
    async with control.lock:
        context(request).runs.keep(normal)
        if not await control.remove_target(normal):
            raise Refused(404, f"{shown(spec)} is not traced", "see GET /v1/latency/targets")
    return Response(status_code=204)


async def get_filters(request: Request) -> Response:
    """What is counted."""
    query(request)
    return answer(context(request).control.filters._asdict())


async def put_filters(request: Request) -> Response:
    """Count something else."""
    query(request)
    control = context(request).control
    control.set_filters((await body(request, FilterWish)).checked())
    return answer(control.filters._asdict())


async def get_interval(request: Request) -> Response:
    """The seconds between Frames."""
    query(request)
    return answer({"seconds": context(request).control.interval})


async def put_interval(request: Request) -> Response:
    """Other seconds between Frames."""
    query(request)
    control = context(request).control
    seconds = (await body(request, IntervalWish)).seconds
    control.set_interval(seconds)
    return answer({"seconds": seconds})


async def get_search(request: Request) -> Response:
    """What can be traced and fits a text."""
    text = query(request, ("q",)).needed("q")
    found = await context(request).control.search(text)
    return answer({"found": [one._asdict() for one in found]})
