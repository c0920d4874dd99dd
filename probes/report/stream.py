# SPDX-License-Identifier: Apache-2.0
"""One interval as the JSON object that scripts rely on: `probetop stream`, and its kin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from probes.core.delta import seconds_between
from probes.core.elapsed import counted_seconds
from probes.core.estimates import duty_object, duty_of
from probes.core.frame import Frame
from probes.core.safe_text import escaped
from probes.core.sample import Cost, Sample

if TYPE_CHECKING:
    from probes.probe import Probe


def stream_object(
    before: Frame | None, after: Frame, probe_classes: Mapping[str, type[Probe]]
) -> dict[str, Any]:
    """What happened between two Frames, for every probe in `probe_classes` (by name).

    Counts are of the interval, durations in nanoseconds, `time` is Unix seconds, `interval`
    the measured seconds; `seconds` of a probe is for how many of these it counted. Unknown is
    None: all of a probe's own fields, where it is off at the interval's end.
    """
    seconds = seconds_between(before, after)
    filters = after.filters._asdict()
    return {
        "time": after.time,
        "interval": seconds,
        "host": after.host.name,
        "filters": {name: value for name, value in filters.items() if value is not None},
        "notices": [notice._asdict() for notice in after.notices],
        "budget": after.budget._asdict() if after.budget is not None else None,
        "probes": {
            name: _probe_object(
                kind,
                before.samples.get(name) if before else None,
                after.samples.get(name),
                seconds,
            )
            for name, kind in probe_classes.items()
        },
    }


def dumps(obj: Mapping[str, Any]) -> str:
    """One line of JSON in ASCII, so that nothing in it can act on a terminal."""
    text = json.dumps(obj, allow_nan=False, separators=(",", ":"))
    if "\\ud" in text:
        # Parsers refuse half a surrogate pair, which an option or a path may have.
        text = json.dumps(_without_surrogates(obj), allow_nan=False, separators=(",", ":"))
    return text


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, Mapping):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value


def _probe_object(
    kind: type[Probe], before: Sample | None, after: Sample | None, seconds: float
) -> dict[str, Any]:
    # In a recording any Sample may have the name of this probe.
    if not isinstance(after, kind.sample_type):
        after = kind.sample_type()
    if not isinstance(before, kind.sample_type):
        before = None
    runs = after.state == "on"
    own_seconds = counted_seconds(before, after, seconds) if runs else None
    common: dict[str, Any] = {
        "state": after.state,
        "seconds": own_seconds,
        "lost": _since(before, after, "lost"),
        "cost": _cost(before, after),
    }
    if after.state == "failed":
        common |= {"why": after.why, "fix": after.fix}
    bursts = duty_of(before if _went_on(before, after) else None, after) if runs else None
    if bursts is not None:
        common["duty"] = duty_object(bursts)
    if after.given_up is not None:
        common["given_up"] = after.given_up
    if after.kept_on is not None:
        common["kept_on"] = after.kept_on
    if after.notes:
        common["notes"] = list(after.notes)
    own = kind.contract(before if runs else None, after, own_seconds or seconds)
    return {**common, **(own if runs else dict.fromkeys(own))}


def _since(before: Sample | None, after: Sample, name: str) -> int:
    """A cumulative number's increase; all of it when counting began in the interval."""
    new: int = getattr(after, name)
    old: int = getattr(before, name) if _went_on(before, after) else 0
    return new - old


def _went_on(before: Sample | None, after: Sample) -> bool:
    """Whether counters of `after` began before the interval; a probe that is off has none."""
    return before is not None and before.generation == after.generation and after.state == "on"


def _cost(before: Sample | None, after: Sample) -> dict[str, Any]:
    """COST of the contract; what it costs is not known before the statistics ran."""
    cost = after.cost
    old = before.cost if before is not None and _went_on(before, after) else Cost()
    return {
        "events": cost.events - old.events,
        "ns_per_event": cost.ns_per_event,
        "cpu_percent": cost.cpu_percent,
        "map_bytes": cost.map_bytes,
    }
