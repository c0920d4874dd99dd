# SPDX-License-Identifier: Apache-2.0
"""The shapes of what the agent takes and answers, as JSON Schema for its description."""

from __future__ import annotations

from typing import Any

from tui.agent.runs import LONGEST
from tui.registry import names
from tui.settings.decoding import MOST_TARGETS, MOST_TEXT
from tui.settings.validators import LONGEST as LONGEST_INTERVAL
from tui.settings.validators import MOST_SAMPLE, NO_ID, SHORTEST

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A reference to one of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def maybe(schema: Schema) -> Schema:
    """What it says, or null."""
    if "type" in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def text(words: str = "", **more: Any) -> Schema:
    """A text."""
    return {"type": "string", **({"description": words} if words else {}), **more}


def given(words: str = "", **more: Any) -> Schema:
    """A text that a request gives."""
    return text(words, maxLength=MOST_TEXT, **more)


def whole(words: str = "", **more: Any) -> Schema:
    """A whole number."""
    return {"type": "integer", **({"description": words} if words else {}), **more}


def real(words: str = "", **more: Any) -> Schema:
    """A number."""
    return {"type": "number", **({"description": words} if words else {}), **more}


def many(schema: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": schema, **more}


def shape(properties: Schema, needed: list[str] | None = None, words: str = "") -> Schema:
    """An object of exactly these members; those that are needed, else all."""
    return {
        "type": "object",
        **({"description": words} if words else {}),
        "properties": properties,
        "required": sorted(properties) if needed is None else needed,
        "additionalProperties": False,
    }


FLAG: Schema = {"type": "boolean"}
ANY: Schema = {"type": "object"}
STATE = text(enum=["on", "off", "starting", "failed"])
WHY, FIX = maybe(text("why it failed")), maybe(text("how to mend it"))

USER: Schema = {
    **given("a user's name or number, in the place of uid", minLength=1),
    "type": ["string", "integer", "null"],
    "minimum": 0,
    "maximum": NO_ID - 1,
}
FILTER_FIELDS: Schema = {
    "pid": maybe(whole("only this process", minimum=1, maximum=NO_ID)),
    "comm": maybe(given("only processes of this name", minLength=1)),
    "uid": maybe(whole("only this user, real or effective", minimum=0, maximum=NO_ID - 1)),
    "cgroup": maybe(given("only this cgroup and those below it")),
}

SCHEMAS: dict[str, Schema] = {
    "Error": shape({"why": text("what is wrong"), "fix": text("how to mend it")}),
    "Cost": shape(
        {
            "events": whole("programs' runs, cumulative"),
            "ns_per_event": maybe(real()),
            "cpu_percent": maybe(real("of one CPU")),
            "map_bytes": maybe(whole("kernel memory")),
        }
    ),
    "Probe": shape(
        {
            "name": text(enum=list(names())),
            "state": STATE,
            "wanted": {**FLAG, "description": "whether it is on while somebody watches"},
            "why": WHY,
            "fix": FIX,
            "given_up": maybe(text("what it does without to stay within the budget")),
            "lost": whole("events that found no room, cumulative"),
            "cost": ref("Cost"),
            "options": {**ANY, "description": "by name"},
        }
    ),
    "Probes": shape(
        {
            "interval": real("seconds"),
            "budget": maybe(
                shape(
                    {
                        "percent": real("of all CPUs"),
                        "used": maybe(real("of all CPUs")),
                        "drawing": whole("of how many Frames a screen draws one"),
                        "lifted": maybe(real("seconds for which nothing is given up")),
                    }
                )
            ),
            "watched": {**FLAG, "description": "false: all is detached until somebody watches"},
            "probes": many(ref("Probe")),
        }
    ),
    "ProbeWish": shape(
        {
            "on": maybe({**FLAG, "description": "false truly detaches it"}),
            "options": maybe(
                {
                    "type": "object",
                    "description": "those of this probe: syscalls has latency and sample_every, "
                    "latency has targets, pmc has set, mode and events, execs has args",
                    "properties": {
                        "latency": FLAG,
                        "sample_every": whole(minimum=1, maximum=MOST_SAMPLE),
                        "targets": many(given(), maxItems=MOST_TARGETS),
                        "set": given(),
                        "mode": given(),
                        "events": many(given(), maxItems=MOST_TARGETS),
                        "args": FLAG,
                    },
                    "additionalProperties": False,
                }
            ),
        },
        [],
    ),
    "Target": shape(
        {
            "spec": text("what is timed, as it was asked for"),
            "mechanism": maybe(text("how, such as uprobe; null before it is attached")),
            "state": STATE,
            "why": WHY,
            "fix": FIX,
            "given_up": {**FLAG, "description": "it was detached to stay within the budget"},
            "functions": whole("how many functions it is attached to"),
            "counts_only": {**FLAG, "description": "there is no end to it: it has no durations"},
            "unit": text("of its histogram; empty: a value, not a time", enum=["ns", ""]),
            "floor": maybe(real("ns that an empty function shows")),
            "file": maybe(
                text("where its path leads now", enum=["current", "replaced", "deleted", None])
            ),
        }
    ),
    "Targets": shape({"targets": many(ref("Target"))}),
    "TargetWish": shape(
        {
            "spec": given("for example uprobe:libc:malloc", minLength=1),
            "follow": maybe({**FLAG, "description": "attach it anew to what its path leads to"}),
        },
        ["spec"],
    ),
    "Filters": shape(FILTER_FIELDS, words="null takes everything"),
    "FilterWish": shape(
        {**FILTER_FIELDS, "user": USER},
        [],
        "absent or null takes everything",
    ),
    "Interval": shape(
        {"seconds": real("between frames", minimum=SHORTEST, maximum=LONGEST_INTERVAL)}
    ),
    "Found": shape(
        {
            "found": many(
                shape(
                    {
                        "spec": text("a target"),
                        "mechanism": text(),
                        "note": text(),
                        "cost": maybe(real("ns that a call costs more")),
                    }
                )
            )
        }
    ),
    "RunWish": shape(
        {
            "seconds": real("how long to count", minimum=SHORTEST, maximum=LONGEST),
            "probes": maybe(
                many(
                    text(enum=list(names())), minItems=1, maxItems=16, description="default: wanted"
                )
            ),
            "targets": maybe(many(given(), maxItems=MOST_TARGETS, description="to time, too")),
            "filters": maybe(ref("FilterWish")),
        },
        ["seconds"],
    ),
    "Runs": shape({"runs": many(ref("RunHead"))}),
    "Snapshot": {**ANY, "description": "what `probetop snapshot OUT.json` writes"},
    "Report": shape(
        {
            "ok": {**FLAG, "description": "whether the probes that are on at start can run"},
            "machine": ANY,
            "checks": many(ANY),
        },
        words="what `probetop doctor --json` prints",
    ),
    "Health": shape({"ok": FLAG}),
}

_RUN: Schema = {
    "id": text(),
    "state": text(enum=["running", "done", "stopped", "failed"]),
    "seconds": real(),
    "probes": many(text()),
    "targets": many(text()),
    "filters": maybe(ref("Filters")),
    "created": real("Unix seconds"),
    "began": maybe(real("Unix seconds of the first count; null while its probes start")),
    "ended": maybe(real("Unix seconds of the last count")),
    "problems": many(
        shape({"what": text("a probe or target"), "why": text(), "fix": text()}),
        description="what of it does not work; the rest does",
    ),
}
SCHEMAS["RunHead"] = shape(_RUN)
SCHEMAS["Run"] = shape({**_RUN, "result": maybe(ref("Snapshot"))})
