# SPDX-License-Identifier: Apache-2.0
"""Keeps probes away from 5-byte nops, where this kernel makes harmful calls of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.suggestions import quote
from probes.symbols.binaries import INSIDE, FilePlace
from probes.uprobes import harm_trials
from probes.uprobes.harm_trials import NOP5


def _is_nop(place: FilePlace) -> bool:
    if kernel.arch() != "x86_64" or place.file is None:
        return False
    return place.file.read(len(NOP5), place.offset) == NOP5


def behind(found: Sequence[FilePlace]) -> tuple[FilePlace, ...]:
    """Places where functions begin; behind the nop that one begins with, where it has to be.

    Raises ProbeError for a place inside of a function, as `checked` does.
    """
    checked([place for place in found if place.no_return == INSIDE])
    return tuple(
        replace(place, offset=place.offset + len(NOP5))
        if place.no_return != INSIDE
        and _is_nop(place)
        and not harm_trials.harmless(harm_trials.survives_fork)
        else place
        for place in found
    )


def checked(found: list[FilePlace]) -> list[FilePlace]:
    """Places inside of functions; raises ProbeError for one that would change the stack."""
    for place in found:
        if _is_nop(place) and harm_trials.turns_nops_into_calls():
            why = f"{quote(place.name)} is a 5-byte nop, which this kernel makes a call of"
            fix = "that could change what the function keeps on the stack: trace a function"
            raise ProbeError(why, fix)
    return found
