# SPDX-License-Identifier: Apache-2.0
"""Which tracepoints a kernel has, and where the fields of their records lie.

`tracefs` is where it is mounted, None where it is not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from probes import kernel
from probes.base import ProbeError
from probes.near import did_you_mean, near, quote


class Field(NamedTuple):
    """A field of a tracepoint's record: place and size in bytes; an `array` is no number."""

    name: str
    offset: int
    size: int
    signed: bool
    array: bool
    type: str


def tracepoints(tracefs: Path | None) -> list[tuple[str, str]]:
    """(category, name) of every tracepoint that programs can be attached to, sorted."""
    if tracefs is None:
        return []
    text = kernel.read_text(tracefs / "available_events")
    if text:
        rows = (line.partition(":") for line in text.splitlines())
        found = {(category, name) for category, _, name in rows}
    else:
        paths = (tracefs / "events").glob("*/*/format")
        found = {(path.parent.parent.name, path.parent.name) for path in paths}
    # ftrace's own records are no tracepoints.
    return sorted(pair for pair in found if pair[0] != "ftrace")


def tracepoint_format(tracefs: Path | None, category: str, name: str) -> Mapping[str, Field]:
    """The fields of a tracepoint's record by name; raises ProbeError if there is none."""
    if tracefs is None:
        why = "tracefs is not mounted, and mounting it was refused"
        raise ProbeError(why, "mount -t tracefs tracefs /sys/kernel/tracing")
    path = tracefs / "events" / category / name / "format"
    text = kernel.read_text(path) if re.fullmatch(r"[\w-]+:\w+", f"{category}:{name}") else None
    if text and category != "ftrace":
        return parse_format(text)
    if text is None and os.path.isfile(path):
        raise ProbeError(f"{quote(str(path))} cannot be read", "run as root")
    known = tracepoints(tracefs)
    found = (
        [f"{c}:{n}" for c, n in known if n == name]
        or [f"{category}:{n}" for n in near(name, [n for c, n in known if c == category])]
        or near(f"{category}:{name}", [f"{c}:{n}" for c, n in known])
    )
    shown = quote(f"{category}:{name}")
    fix = did_you_mean(found, "look for it with f", "tracepoint:")
    raise ProbeError(f"this kernel has no tracepoint {shown}", fix)


def key_fields(
    tracefs: Path | None, category: str, name: str, fields: Iterable[str]
) -> list[Field]:
    """The fields that join a pair; raises ProbeError for one that is missing or no number."""
    known = tracepoint_format(tracefs, category, name)
    numbers = [n for n, f in known.items() if not f.array and not n.startswith("common_")]
    has = f"it has {', '.join(numbers)}" if numbers else "it has no numbers"
    for field in fields:
        if field not in known:
            why = f"the tracepoint {category}:{name} has no field {quote(field)}"
            raise ProbeError(why, did_you_mean(near(field, numbers), has))
        if known[field].array:
            why = f"the field {field} of {category}:{name} is text, and only numbers join a pair"
            raise ProbeError(why, has)
    return [known[field] for field in fields]


def parse_format(text: str) -> dict[str, Field]:
    """The fields that a tracepoint's format file describes."""
    pattern = r"field:([^;]+);\s*offset:(\d+);\s*size:(\d+);\s*signed:([01]);"
    found: dict[str, Field] = {}
    for declaration, offset, size, signed in re.findall(pattern, text):
        left, bracket, _ = declaration.partition("[")
        kind, _, name = left.strip().rpartition(" ")
        if "__data_loc" in declaration or "__rel_loc" in declaration:
            # "__data_loc char[] name": a text elsewhere in the record.
            kind, _, name = declaration.strip().rpartition(" ")
        array = bool(bracket) or int(size) not in (1, 2, 4, 8)
        found[name] = Field(name, int(offset), int(size), signed == "1", array, kind)
    return found
