# SPDX-License-Identifier: Apache-2.0
"""How calls of a user-space function are timed without harm to the program that makes them.

By a return probe where the file is C, which costs least; by uprobes at the function's own return
instructions where an exception or a runtime may leave it; else its calls are only counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from probes.core.errors import ProbeError
from probes.symbols import functions as elf_functions
from probes.symbols.binaries import GO, FilePlace
from probes.uprobes import go_files, own_returns, return_hazards
from probes.uprobes.own_returns import NotProven, OwnReturns

FORCE = "--force-timing if you know that none comes"
FORCE_OTHERS = "--force-timing if you know that it does not happen"
GO_CRASH = "a return probe would crash Go"
NOT_GO = "they are not of Go, and the others are"
MOST_NAMED = 3
"""Functions that a row names."""
MOST_ENDS = 4096
"""Most return instructions of one target."""


@dataclass(frozen=True, slots=True)
class CallEnds:
    """Where the calls of a target begin and end, and how they are told.

    `shared` ends are those at which calls of other functions may end. Calls of functions at
    `counted` have no duration. Where any are counted only, `why` says so, and `fix` what can be
    done about it.
    """

    how: Literal["return probe", "own returns", "goroutine", "counted"]
    begins: tuple[FilePlace, ...]
    ends: tuple[FilePlace, ...] = ()
    shared: tuple[FilePlace, ...] = ()
    counted: tuple[FilePlace, ...] = ()
    why: str | None = None
    fix: str | None = None


def choose(found: Sequence[FilePlace], force: bool = False) -> CallEnds:
    """How to time calls of functions of one file; raises ProbeError.

    With `force`, return probes are placed where they could harm, but not where they would.
    """
    begins = tuple(found)
    if not found or found[0].file is None:
        return CallEnds("return probe", begins)
    if found[0].no_return == GO:
        return _go(begins)
    never = {place: place.no_return for place in begins if place.no_return}
    timed = tuple(place for place in begins if place not in never)
    hazard = _hazard(timed)
    if not timed:
        return CallEnds("counted", begins, why=_counted(never[begins[0]]))
    if not hazard or (force and not return_hazards.is_fatal(hazard)):
        return _with_counted(CallEnds("return probe", timed, timed), never)
    fix = FORCE if hazard == return_hazards.EXCEPTION else FORCE_OTHERS
    return _own(timed, False, hazard, never, None if return_hazards.is_fatal(hazard) else fix)


def _with_counted(
    calls: CallEnds, unproven: Mapping[FilePlace, str], fix: str | None = None
) -> CallEnds:
    """The same with functions of which calls are counted only, each for a reason."""
    if not unproven:
        return calls
    names = [place.name for place in unproven]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    every = len(calls.begins) + len(unproven)
    why = (
        f"timed {len(calls.begins)} of {every} functions; {len(unproven)} counted only: "
        f"{', '.join(names[:MOST_NAMED])}{more}: {next(iter(unproven.values()))}"
    )
    return replace(calls, counted=tuple(unproven), why=why, fix=fix)


def _counted(why: str) -> str | None:
    return f"counted only: {why}" if why else None


def _hazard(places: Sequence[FilePlace]) -> str:
    found = ""
    for place in places:
        if place.file is not None:
            why = return_hazards.of(place.file, place.name)
            found = why if why and not return_hazards.is_fatal(found) else found
    return found


def _go(places: tuple[FilePlace, ...]) -> CallEnds:
    """Functions of a Go program; those of C in it are on stacks that stay where they are."""
    file = places[0].file
    assert file is not None
    by_go = tuple(place for place in places if "." in place.name)
    if not by_go:
        return _own(places, False, GO_CRASH, {}, None)
    unproven = {place: NOT_GO for place in places if place not in by_go}
    for place in by_go:
        if why := go_files.why_untimed(file, place.name):
            unproven[place] = f"{GO_CRASH} ({why})"
    timed = tuple(place for place in places if place not in unproven)
    return _own(timed, True, GO_CRASH, unproven, None)


def _own(
    places: tuple[FilePlace, ...],
    go: bool,
    hazard: str,
    others: Mapping[FilePlace, str],
    fix: str | None,
) -> CallEnds:
    """Functions timed at their own returns where those are known, beside `others` that are not.

    `hazard` is what a return probe would do, `fix` what to do about it where nothing is known.
    """
    unproven = dict(others)
    begins, ends, shared = [], [], []
    for place, one in zip(places, _returns(places, go), strict=True):
        if isinstance(one, NotProven):
            unproven[place] = f"{hazard} ({one})"
            continue
        begins.append(replace(place, offset=one.entry))
        ends += [replace(place, offset=at) for at in one.ends]
        shared += [replace(place, offset=at) for at in one.shared]
    if len(ends) + len(shared) > MOST_ENDS:
        many = f"{hazard} (they return at {len(ends) + len(shared)} places)"
        unproven, begins = dict.fromkeys([*others, *places], many), []
    if not begins:
        return CallEnds("counted", tuple(unproven), why=_counted(_one_reason(unproven)), fix=fix)
    taken = {place.offset for place in ends}
    apart = {place.offset: place for place in shared if place.offset not in taken}
    how: Literal["goroutine", "own returns"] = "goroutine" if go else "own returns"
    calls = CallEnds(how, tuple(begins), tuple(ends), tuple(apart.values()))
    return _with_counted(calls, unproven, fix)


def _one_reason(unproven: Mapping[FilePlace, str]) -> str:
    """Why none of some functions is timed: the first one's reason, and its name among several."""
    place, why = next(iter(unproven.items()))
    return why if len(unproven) == 1 else f"{why}; {place.name} and {len(unproven) - 1} more"


def _returns(places: Sequence[FilePlace], go: bool) -> Sequence[OwnReturns | NotProven]:
    """The returns of each function, or why they are not known."""
    if not places:
        return []
    file = places[0].file
    assert file is not None
    try:
        functions = elf_functions.functions(file)
        names = [elf_functions.symbol_of(file, place.name) for place in places]
        found = own_returns.find(file, [functions[n] for n in names if n in functions], go)
    except ProbeError as error:
        return [NotProven(error.why) for _ in places]
    known = iter(found)
    return [next(known) if n in functions else NotProven("its size is not known") for n in names]
