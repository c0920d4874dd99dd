# SPDX-License-Identifier: Apache-2.0
"""The types of all JSON requests and answers of the agent, as msgspec Structs.

Bodies and query parameters are decoded into them, answers are encoded from them, and `openapi`
describes them: their docstrings and descriptions are published. Lengths are in characters, times in
the unit that the description names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, Struct

from probes.core.errors import ProbeError
from probes.core.frame import Filters as CheckedFilters
from tui.agent.state.measurements import LONGEST
from tui.agent.state.rolling_snapshot import LONGEST as LONGEST_SNAPSHOT
from tui.agent.state.rolling_snapshot import SECONDS
from tui.registry import names
from tui.settings.decoding import MOST_TEXT, Options, Pid, Text, Texts, Uid
from tui.settings.validators import LONGEST as LONGEST_INTERVAL
from tui.settings.validators import SHORTEST, check_cgroup, check_comm, check_pid, check_user, shown

T = TypeVar("T")
MOST_PROBES = 16

Name = Annotated[str, Meta(min_length=1, max_length=MOST_TEXT)]
ProbeName = Annotated[Text, Meta(extra_json_schema={"enum": list(names())})]
ProbeNames = Annotated[list[ProbeName], Meta(min_length=1, max_length=MOST_PROBES)]
State = Literal["on", "off", "starting", "failed"]
Why = Annotated[str | None, Meta(description="why it failed")]
Fix = Annotated[str | None, Meta(description="how to mend it")]
UnixSeconds = Annotated[float, Meta(description="Unix seconds")]


class Message(Struct, forbid_unknown_fields=True):
    """An object with exactly these members."""


# Query parameters.


class SnapshotQuery(Message):
    """The period that a snapshot covers."""

    seconds: Annotated[
        float, Meta(ge=1, le=LONGEST_SNAPSHOT, description="how much of the last minute")
    ] = SECONDS


class TargetQuery(Message):
    """The target."""

    spec: Name


class SearchQuery(Message):
    """The search query."""

    q: Text


# Request bodies.


class ProbeRequest(Message):
    """A probe is switched, or its options are changed; null changes nothing."""

    on: Annotated[bool | None, Meta(description="false detaches its programs")] = None
    options: Annotated[
        Options | None, Meta(description="some of those that GET of this probe shows")
    ] = None


class TargetRequest(Message):
    """A function, or the time between two events, is timed."""

    spec: Annotated[Name, Meta(description="for example uprobe:libc:malloc")]
    follow: Annotated[
        bool, Meta(description="attach it again, to the file that its path leads to now")
    ] = False


class FilterRequest(Message):
    """Only what fits all filters is counted; absent or null takes everything."""

    pid: Annotated[Pid | None, Meta(description="only this process")] = None
    comm: Annotated[Name | None, Meta(description="only processes of this name")] = None
    user: Annotated[
        Name | Uid | None, Meta(description="a user's name or number, in the place of uid")
    ] = None
    uid: Annotated[Uid | None, Meta(description="only this user, real or effective")] = None
    cgroup: Annotated[Text | None, Meta(description="only this cgroup and those below it")] = None

    def checked(self) -> CheckedFilters:
        """The filters, if this machine has what they name; raises ProbeError."""
        if self.user is not None and self.uid is not None:
            raise ProbeError("user and uid are the same filter", "give one of them")
        uid = self.uid if self.user is None else self.user
        return CheckedFilters(
            _checked("pid", self.pid, check_pid),
            _checked("comm", self.comm, check_comm),
            _checked("user", uid, check_user),
            _checked("cgroup", self.cgroup, check_cgroup),
        )


def _checked(name: str, value: Any, check: Callable[[Any], T]) -> T | None:
    try:
        return None if value is None else check(value)
    except ProbeError as error:
        raise ProbeError(f"{name} {shown(value)}: {error.why}", error.fix) from error


class Interval(Message):
    """The time between two Frames; a request and its answer."""

    seconds: Annotated[float, Meta(ge=SHORTEST, le=LONGEST_INTERVAL)]


class RunRequest(Message):
    """A measurement of some seconds is begun."""

    seconds: Annotated[float, Meta(ge=SHORTEST, le=LONGEST, description="how long to count")]
    probes: Annotated[ProbeNames | None, Meta(description="default: those that are wanted")] = None
    targets: Annotated[Texts | None, Meta(description="latency targets to time as well")] = None
    filters: FilterRequest | None = None


# Answers.


class Error(Message):
    """The request is not carried out."""

    why: Annotated[str, Meta(description="what is wrong")]
    fix: Annotated[str, Meta(description="how to mend it")]


class Cost(Message):
    """A probe's cost."""

    events: Annotated[int, Meta(description="runs of its programs, cumulative")]
    ns_per_event: float | None
    cpu_percent: Annotated[float | None, Meta(description="of one CPU")]
    map_bytes: Annotated[int | None, Meta(description="kernel memory")]


class Probe(Message):
    """A probe as it stands."""

    name: ProbeName
    state: State
    wanted: Annotated[bool, Meta(description="it is on while a client watches")]
    why: Why
    fix: Fix
    given_up: Annotated[
        str | None, Meta(description="what it does not do, to stay within the budget")
    ]
    lost: Annotated[int, Meta(description="events for which there was no room, cumulative")]
    cost: Cost
    options: Annotated[dict[str, Any], Meta(description="by name")]


class Budget(Message):
    """The limit on the cost of all probes, and their present cost."""

    percent: Annotated[float, Meta(description="of all CPUs")]
    used: Annotated[float | None, Meta(description="of all CPUs")]
    drawing: Annotated[int, Meta(description="a screen draws one of so many Frames")]
    lifted: Annotated[float | None, Meta(description="seconds for which the budget does not hold")]


class Probes(Message):
    """All probes."""

    interval: Annotated[float, Meta(description="seconds")]
    budget: Budget | None
    watched: Annotated[bool, Meta(description="false: all is detached until a client watches")]
    probes: list[Probe]


class Target(Message):
    """A timed target; its counts are in Frames."""

    spec: Annotated[str, Meta(description="what is timed, as it was asked for")]
    mechanism: Annotated[
        str | None, Meta(description="how, such as uprobe; null before it is attached")
    ]
    state: State
    why: Why
    fix: Fix
    given_up: Annotated[bool, Meta(description="it was detached to stay within the budget")]
    functions: Annotated[int, Meta(description="how many functions it is attached to")]
    counts_only: Annotated[bool, Meta(description="it has no end, so it has no durations")]
    unit: Annotated[
        Literal["ns", ""],
        Meta(description="of its histogram; empty where that is of values, not of times"),
    ]
    floor: Annotated[float | None, Meta(description="ns that an empty function shows")]
    file: Annotated[
        Literal["current", "replaced", "deleted"] | None,
        Meta(description="what its path leads to now"),
    ]


class Targets(Message):
    """All targets."""

    targets: list[Target]


class Filters(Message):
    """The filters of what is counted; null accepts everything."""

    pid: int | None
    comm: str | None
    uid: int | None
    cgroup: str | None


class FoundTarget(Message):
    """A target that can be timed on this machine."""

    spec: Annotated[str, Meta(description="a target")]
    mechanism: str
    note: str
    cost: Annotated[float | None, Meta(description="ns by which a call takes longer")]


class Found(Message):
    """The results of a search, the best first."""

    found: list[FoundTarget]


class Problem(Message):
    """A part of a measurement that does not work; the rest does."""

    what: Annotated[str, Meta(description="a probe or a target")]
    why: str
    fix: str


class RunHead(Message):
    """A measurement."""

    id: str
    state: Literal["running", "done", "stopped", "failed"]
    seconds: float
    probes: list[str]
    targets: list[str]
    filters: Filters | None
    created: UnixSeconds
    began: Annotated[
        float | None, Meta(description="Unix seconds of the first count; null while probes start")
    ]
    ended: Annotated[float | None, Meta(description="Unix seconds of the last count")]
    problems: list[Problem]


class Run(RunHead):
    """A measurement with its result."""

    result: Annotated[
        dict[str, Any] | None, Meta(description="what `probetop snapshot OUT.json` writes")
    ]


class Runs(Message):
    """All measurements that are kept, without their results."""

    runs: list[RunHead]


class Report(Message):
    """The report that `probetop doctor --json` prints."""

    ok: Annotated[bool, Meta(description="the probes that are on at start can run")]
    machine: dict[str, Any]
    checks: list[dict[str, Any]]


class Health(Message):
    """Frames come."""

    ok: bool
