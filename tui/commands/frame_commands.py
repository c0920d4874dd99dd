# SPDX-License-Identifier: Apache-2.0
"""Commands that the remote side of a dashboard accepts: one typed JSON object per line."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from probes.core.errors import ProbeError
from probes.core.frame import Filters
from probes.live.budget_controller import LIFTED
from probes.source import Source
from tui.settings.decoding import OPTION_TYPES, Pid, Text, Uid, strict_json, typed
from tui.settings.validators import LONGEST, SHORTEST, check_comm

MOST_NUMBER = 2**53
Number = Annotated[int, Meta(ge=0, le=MOST_NUMBER)]
Name = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_]{0,31}\Z")]
"""The name of a probe or an option, which errors repeat."""
LONGEST_QUERY = 200


class Alive(Struct, tag_field="op", tag="alive"):
    """Keeps the link alive."""


class Seen(Struct, tag_field="op", tag="seen"):
    """Acknowledges the total of received Frames."""

    frames: Number


class Search(Struct, tag_field="op", tag="search"):
    """Searches for targets."""

    id: Number
    query: Text


class Toggle(Struct, tag_field="op", tag="toggle"):
    """Attaches or detaches a probe."""

    id: Number
    probe: Name
    on: bool

    def carry_out(self, source: Source) -> None:
        """Run the command; raises ProbeError if it fails."""
        source.toggle(self.probe, self.on)


class SetOption(Struct, tag_field="op", tag="option"):
    """Changes an option of a probe."""

    id: Number
    probe: Name
    option: Name
    value: Any

    def carry_out(self, source: Source) -> None:
        """Run the command; raises ProbeError if it fails."""
        kind = OPTION_TYPES.get(self.option)
        if kind is None:
            raise ProbeError("there is no such option", "update probetop there")
        value = typed(self.value, kind, "the value")
        value = tuple(value) if isinstance(value, list) else value
        source.set_option(self.probe, self.option, value)


class Counted(Struct, forbid_unknown_fields=True):
    """Kernel filters; null accepts everything."""

    pid: Pid | None = None
    comm: Text | None = None
    uid: Uid | None = None
    cgroup: Text | None = None


class SetFilters(Struct, tag_field="op", tag="filters"):
    """Changes the kernel filters."""

    id: Number
    filters: Counted

    def carry_out(self, source: Source) -> None:
        """Run the command; raises ProbeError if it fails."""
        given = self.filters
        comm = check_comm(given.comm) if given.comm is not None else None
        source.set_filters(Filters(given.pid, comm, given.uid, given.cgroup))


class SetInterval(Struct, tag_field="op", tag="interval"):
    """Changes the seconds between two Frames."""

    id: Number
    seconds: Annotated[float, Meta(ge=SHORTEST, le=LONGEST)]

    def carry_out(self, source: Source) -> None:
        """Run the command."""
        source.set_interval(self.seconds)


class LiftBudget(Struct, tag_field="op", tag="budget"):
    """Suspends the budget for some seconds; 0 enforces it again."""

    id: Number
    seconds: Annotated[float, Meta(ge=0.0, le=LIFTED)]

    def carry_out(self, source: Source) -> None:
        """Run the command."""
        source.lift_budget(self.seconds)


Change = Toggle | SetOption | SetFilters | SetInterval | LiftBudget
Command = Alive | Seen | Search | Change


def decode(line: bytes) -> tuple[int | None, Command]:
    """Return a command and its number, None for one without an answer; raises NotACommand."""
    value: Any = None
    try:
        value = strict_json(line)
        command: Command = typed(value, Command, "the command")  # type: ignore[arg-type]
    except ProbeError as error:
        number = value.get("id") if isinstance(value, dict) else None
        known = number if type(number) is int and 0 <= number <= MOST_NUMBER else None
        raise NotACommand(known, error.why) from None
    return getattr(command, "id", None), command


class NotACommand(ProbeError):
    """Raised for a line that is not a command; `number` is the one that it names, if any."""

    def __init__(self, number: int | None, why: str) -> None:
        super().__init__(f"a command that is not known here ({why})", "update probetop there")
        self.number = number
