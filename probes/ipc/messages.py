# SPDX-License-Identifier: Apache-2.0
"""The messages between dashboard, broker and loader: their types and bounds.

The unprivileged side may send anything, so the broker takes nothing that `request` has not
decoded: a value of another type, an unknown field or a number out of range is a MessageError,
which is answered and changes nothing. `probes.ipc.pipe` carries requests, `probes.ipc.packets` the
rest.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

MOST_IDS = 200
"""Containers whose names one question may ask for."""
MOST_DEPTH = 16
"""Lists and objects within each other that the parameters of a probe may have."""

Id = Annotated[int, Meta(ge=0, lt=2**53)]
Nanoseconds = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""Of the monotonic clock: a machine may be up for years."""
Name = Annotated[str, Meta(max_length=64)]
Number = Annotated[int, Meta(ge=0, lt=2**31)]
MOST_ON, MOST_PERIOD = 10_000, 60_000
"""Milliseconds of one burst, and from one to the next, at most."""
LEAST_PERIOD = 100
"""Milliseconds from one burst to the next at least: each switches programs twice."""
CpuCount = Annotated[int, Meta(gt=0, le=65_536)]
MapEntries = Annotated[int, Meta(gt=0, le=1 << 24)]
NanosecondsOfCall = Annotated[float, Meta(ge=0.0, le=1e9)]
"""What a probe is told of its maps and its cost, see `probes.bpf.plan.Loaded.facts_as`."""
T = TypeVar("T")


class MessageError(Exception):
    """A message that is malformed, of an unknown kind or out of bounds."""


class Request(Struct, tag_field="op", forbid_unknown_fields=True, kw_only=True):
    """What the dashboard asks of the broker; the answer has the same `id`."""

    id: Id


class Load(Request, tag="load", kw_only=True):
    """Load a probe's programs and attach them; the probe checks its own `params`."""

    probe: Name
    params: dict[str, Any] = {}


class Detach(Request, tag="detach", kw_only=True):
    """Detach what one Load attached, or only some of its groups. There is no answer."""

    unit: Id
    groups: Annotated[list[Number], Meta(max_length=1000)] | None = None


class Burst(Request, tag="burst", kw_only=True):
    """Attach a unit, or one group of it, in bursts: `on` milliseconds of each `period`.

    With `on` 0 it is attached for good again. The broker reports each burst, see BurstReport.
    """

    unit: Id
    group: Number | None = None
    on: Annotated[int, Meta(ge=0, le=MOST_ON)]
    period: Annotated[int, Meta(ge=LEAST_PERIOD, le=MOST_PERIOD)]


class Taken(Request, tag="taken", kw_only=True):
    """What the programs counted until a BurstReport is taken in: the next burst may begin."""

    unit: Id
    group: Number | None = None
    number: Id


class Runs(Request, tag="runs", kw_only=True):
    """Tell how often the programs of each unit ran, and what the kernel left out."""


class Measure(Request, tag="measure", kw_only=True):
    """Switch the kernel's run-time statistics on or off; the answer is that of Runs."""

    on: bool


class Search(Request, tag="search", kw_only=True):
    """Search what can be traced here."""

    query: Annotated[str, Meta(max_length=1000)]


class Names(Request, tag="names", kw_only=True):
    """Ask the container runtimes for the names of containers."""

    ids: Annotated[list[Name], Meta(max_length=MOST_IDS)]


class Help(Request, tag="help", kw_only=True):
    """Have a helper work, see `probes.broker.jobs`."""

    name: Name


AnyRequest = Load | Detach | Burst | Taken | Runs | Measure | Search | Names | Help


class RunStats(msgspec.Struct, array_like=True, frozen=True):
    """Runs of programs while they were measured, their ns, and runs that the kernel skipped."""

    count: int = 0
    nanoseconds: int = 0
    missed: int = 0


class BurstReport(Struct, array_like=True, frozen=True):
    """What became of programs that are attached in bursts; times are monotonic nanoseconds.

    `kind` is "paused" (attached no more since `end`), "burst" (attached from `begin` to `end`, in
    the period from `since` to `until` for which that stands), "steady" (attached for good since
    `begin`) or "failed". `edges` are the ns of it that are not certain, `cost` those that attaching
    and detaching took, `price` those that a system call of the broker's own took more within it.
    `skipped` bursts before it could not be made, as where the kernel had not let go yet of what the
    last one had attached: it stands for their periods too.
    """

    unit: Id
    group: Number | None
    number: Id
    kind: Literal["paused", "burst", "steady", "failed"]
    since: Nanoseconds = 0
    begin: Nanoseconds = 0
    end: Nanoseconds = 0
    until: Nanoseconds = 0
    edges: Nanoseconds = 0
    cost: Nanoseconds = 0
    price: int = 0
    skipped: Number = 0


MOST_PLACES = 512
"""Places of a file at which one link that is attached in bursts runs a program, at most."""


class Recipe(Struct, array_like=True, frozen=True):
    """How the broker attaches a program again: the number of the `program`, and to what.

    `kind` is "raw_tracepoint" (`target` is its name), "btf_tracepoint", "fentry" or "fexit",
    "tracepoint" (`config` is its number), "kprobe" or "kretprobe" (`target` is the function),
    "edge" (run on each of `config` CPUs, attached to nothing) or "" for what is never switched. For
    "uprobe", "uretprobe" and these with "_multi" (by one link) the `places` are (offset, offset of
    the counter) in the `file`, which is the number of a held descriptor; `version` is what the file
    was when it was read, as `version_of` tells it.
    """

    kind: Literal[
        "", "raw_tracepoint", "btf_tracepoint", "fentry", "fexit", "tracepoint", "kprobe",
        "kretprobe", "uprobe", "uretprobe", "uprobe_multi", "uretprobe_multi", "edge",
    ] = ""  # fmt: skip
    program: Number = 0
    target: Name = ""
    config: Id = 0
    file: Number = 0
    version: tuple[int, ...] = ()
    places: Annotated[tuple[tuple[int, int], ...], Meta(max_length=MOST_PLACES)] = ()


class Answer(Struct, kw_only=True):
    """What a request led to: `ok`, or else `why` not and how to mend it (`fix`).

    `log` is what compiler and verifier printed. The other fields are those of one kind of request
    each; `maps` names the descriptors of a Load, which come with the message, and `unit` is what
    was attached by it: the `groups` of programs, without those in `failures` (group, why, fix).
    `map_bytes` is the kernel memory of all its maps.
    """

    id: Id | None
    ok: bool
    why: str = ""
    fix: str = ""
    log: str = ""
    unit: Id = 0
    facts: dict[str, Any] = {}
    maps: list[str] = []
    groups: list[int] = []
    failures: list[tuple[int, str, str]] = []
    notes: list[str] = []
    map_bytes: int | None = None
    runs: dict[int, RunStats] = {}
    found: list[tuple[str, str, str, float | None]] = []
    names: dict[str, Any] = {}
    burst: BurstReport | None = None
    result: Any = None


class LoadAnswer(Answer, kw_only=True):
    """What the loader tells the broker: also how many descriptors it keeps, after the maps'.

    Those of `programs` come first, then one for each of `links`, by its group (None: of no
    group), which `recipes` tells how to make again, then those of `held` maps, which lose what is
    in them when nobody holds them. `memory` has the ids of all maps, with their bytes;
    `program_bytes` are those of programs and links.
    """

    programs: int = 0
    links: list[int | None] = []
    recipes: list[Recipe] = []
    held: int = 0
    memory: list[tuple[int, int]] = []
    program_bytes: Annotated[int, Meta(ge=0)] = 0


def told(answer: LoadAnswer) -> dict[str, Any]:
    """What the dashboard is told of a loader's answer: all but what stays with the broker."""
    names = (field for field in Answer.__struct_fields__)
    return {name: msgspec.to_builtins(getattr(answer, name)) for name in names}


def listed(report: BurstReport) -> list[Any]:
    """A report as it is sent."""
    fields: list[Any] = msgspec.to_builtins(report)
    return fields


def request(data: object) -> AnyRequest:
    """The request in a decoded message; raises MessageError."""
    made: AnyRequest = convert(data, AnyRequest)  # type: ignore[arg-type]
    if isinstance(made, Load):
        # A loader has less of the interpreter's stack left to decode the same.
        _check_depth(made.params, MOST_DEPTH)
    return made


def _check_depth(value: object, left: int) -> None:
    """Raises MessageError for lists and objects within each other, more than some."""
    if isinstance(value, (dict, list)):
        if not left:
            raise MessageError(f"it has more than {MOST_DEPTH} lists within lists")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)


def convert(data: object, kind: type[T]) -> T:
    """`data` as a `kind`, all of it checked; raises MessageError."""
    try:
        return msgspec.convert(data, kind, str_keys=True)
    except (msgspec.ValidationError, RecursionError, UnicodeError) as error:
        raise MessageError(str(error)[:200]) from None


def id_of(data: object) -> int | None:
    """The id of a message that is wrong otherwise, None if that is wrong too."""
    number = data.get("id") if isinstance(data, dict) else None
    return number if type(number) is int and 0 <= number < 2**53 else None
