# SPDX-License-Identifier: Apache-2.0
"""How calls of a user-space function are timed without harm to the program that makes them.

By a return probe where the file is C, which costs least; by uprobes at the function's own return
instructions where an exception or a runtime may leave it; else its calls are only counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from probes import elf_functions, go_files, own_returns, return_hazards
from probes.base import ProbeError
from probes.binaries import GO, Place
from probes.own_returns import NotProven

FORCE = "--force-timing if you know that none comes"
FORCE_OTHERS = "--force-timing if you know that it does not happen"
MOST_ENDS = 4096
"""Most return instructions of one target."""


@dataclass(frozen=True, slots=True)
class CallEnds:
    """Where the calls of a target begin and end, and how they are told.

    `shared` ends are those at which calls of other functions may end. For what is counted only,
    `why` says so, and `fix` what can be done about it.
    """

    how: Literal["return probe", "own returns", "goroutine", "counted"]
    begins: tuple[Place, ...]
    ends: tuple[Place, ...] = ()
    shared: tuple[Place, ...] = ()
    why: str | None = None
    fix: str | None = None


def choose(found: Sequence[Place], force: bool = False) -> CallEnds:
    """How to time calls of functions of one file; raises ProbeError.

    With `force`, return probes are placed where they could harm, but not where they would.
    """
    begins = tuple(found)
    never = next((p.no_return for p in found if p.no_return not in ("", GO)), "")
    if never or not found or found[0].file is None:
        return CallEnds("counted" if never else "return probe", begins, why=_counted(never))
    if found[0].no_return == GO:
        return _go(begins)
    hazard = _hazard(begins)
    if not hazard or (force and not return_hazards.is_fatal(hazard)):
        return CallEnds("return probe", begins, begins)
    known = _own(begins, go=False)
    if isinstance(known, CallEnds):
        return known
    fix = FORCE if hazard == return_hazards.EXCEPTION else FORCE_OTHERS
    why = f"{_counted(hazard)} ({known})"
    return CallEnds(
        "counted", begins, why=why, fix=None if return_hazards.is_fatal(hazard) else fix
    )


def _counted(why: str) -> str | None:
    return f"counted only: {why}" if why else None


def _hazard(places: Sequence[Place]) -> str:
    found = ""
    for place in places:
        if place.file is not None:
            why = return_hazards.of(place.file, place.name)
            found = why if why and not return_hazards.is_fatal(found) else found
    return found


def _go(places: tuple[Place, ...]) -> CallEnds:
    """Functions of a Go program; those of C in it are on stacks that stay where they are."""
    file = places[0].file
    assert file is not None
    by_go = [place for place in places if "." in place.name]
    if by_go and len(by_go) < len(places):
        return CallEnds("counted", places, why=_counted("some are of Go, and some are not"))
    why = next((w for p in by_go if (w := go_files.why_untimed(file, p.name))), "")
    known = why or _own(places, go=bool(by_go))
    if isinstance(known, CallEnds):
        return known
    return CallEnds("counted", places, why=_counted(f"a return probe would crash Go ({known})"))


def _own(places: tuple[Place, ...], go: bool) -> CallEnds | str:
    """The functions' own returns, or why they are not known."""
    file = places[0].file
    assert file is not None
    functions = elf_functions.functions(file)
    try:
        wanted = [functions[place.name] for place in places]
        found = own_returns.find(file, wanted, go)
    except KeyError:
        return "its size is not known"
    except ProbeError as error:
        return error.why
    begins, ends, shared = [], [], []
    for place, one in zip(places, found, strict=True):
        if isinstance(one, NotProven):
            return str(one) if len(places) == 1 else f"{place.name}: {one}"
        begins.append(replace(place, offset=one.entry))
        ends += [replace(place, offset=at) for at in one.ends]
        shared += [replace(place, offset=at) for at in one.shared]
    if len(ends) + len(shared) > MOST_ENDS:
        return f"they return at {len(ends) + len(shared)} places"
    taken = {place.offset for place in ends}
    others = {place.offset: place for place in shared if place.offset not in taken}
    how: Literal["goroutine", "own returns"] = "goroutine" if go else "own returns"
    return CallEnds(how, tuple(begins), tuple(ends), tuple(others.values()))
