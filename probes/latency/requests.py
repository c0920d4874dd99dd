# SPDX-License-Identifier: Apache-2.0
"""From the parameters of a request to what is attached: a target that fails costs its own row."""

from __future__ import annotations

import os
import time
import traceback
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct

from probes.bpf.plan import Params
from probes.core.errors import ProbeError
from probes.host import file_access
from probes.host.load_time import ALL_SECONDS, TARGET_SECONDS
from probes.ipc.messages import convert
from probes.latency import planner
from probes.symbols import target_spec

MOST_SHOWN = 500
"""Characters of an error and of its fix, which may quote a file: one message has those of all."""


class Wishes(NamedTuple):
    """What is attached and told of each target, and (target, why, fix) of those that failed."""

    wishes: list[planner.Wish]
    targets: list[dict[str, Any]]
    errors: list[tuple[str, str, str]]


class _Params(Struct):
    targets: list[str]
    pid: Annotated[int, Meta(ge=0, le=file_access.MOST_PID)] | None = None
    started: int | None = None
    counted: list[str] = []
    force: bool = False


def wishes_of(params: Params) -> Wishes:
    """What to attach for `targets`; raises MessageError for parameters of other types."""
    asked = convert(params, _Params)
    found = Wishes([], [], [])
    last = time.monotonic() + ALL_SECONDS
    for text in asked.targets:
        seconds = min(TARGET_SECONDS, last - time.monotonic())
        try:
            made = _wish(text, len(found.targets), asked, seconds)
        except ProbeError as error:
            found.errors.append((_shown(text), error.why[:MOST_SHOWN], error.fix[:MOST_SHOWN]))
        except Exception as error:  # whatever a file does to its reader, the others go on
            os.write(2, traceback.format_exc().encode(errors="replace"))
            why = f"preparing it failed ({type(error).__name__})"
            found.errors.append((_shown(text), why, "report it, with what --log FILE writes"))
        else:
            found.targets.append(made.facts(text, len(found.targets)))
            found.wishes.append(made)
    return found


def _wish(text: str, slot: int, asked: _Params, seconds: float) -> planner.Wish:
    if slot >= planner.MOST_TARGETS:
        raise ProbeError(f"{planner.MOST_TARGETS} targets at once are the most", "remove some")
    with file_access.target(target_spec.parse(text).text, seconds):
        counted = text in asked.counted
        return planner.wish(
            text, slot, asked.pid, asked.started, counted=counted, force=asked.force
        )


def _shown(text: object) -> str:
    """A target as it can be sent: without halves of characters."""
    return str(text).encode("utf-8", "backslashreplace").decode()
