# SPDX-License-Identifier: Apache-2.0
"""What requests may say: each body is one of these types, with nothing beside its members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct

from probes.base import ProbeError
from probes.samples import Filters
from tui.agent.runs import LONGEST
from tui.settings.decoding import Options, Pid, Text, Texts, Uid
from tui.settings.validators import (
    LONGEST as LONGEST_INTERVAL,
)
from tui.settings.validators import (
    SHORTEST,
    check_cgroup,
    check_comm,
    check_pid,
    check_user,
    shown,
)

T = TypeVar("T")
MOST_PROBES = 16
FewNames = Annotated[list[Text], Meta(min_length=1, max_length=MOST_PROBES)]


class ProbeWish(Struct, forbid_unknown_fields=True):
    """PUT /v1/probes/{name}."""

    on: bool | None = None
    options: Options | None = None


class TargetWish(Struct, forbid_unknown_fields=True):
    """POST /v1/latency/targets; `follow` attaches one anew, to the file of that path now."""

    spec: Text
    follow: bool = False


class FilterWish(Struct, forbid_unknown_fields=True):
    """PUT /v1/filters; null and what is absent take everything."""

    pid: Pid | None = None
    comm: Text | None = None
    user: Text | int | None = None
    uid: Uid | None = None
    cgroup: Text | None = None

    def checked(self) -> Filters:
        """The filters, if this machine has what they name; raises ProbeError."""
        if self.user is not None and self.uid is not None:
            raise ProbeError("user and uid are the same filter", "give one of them")
        uid = self.uid if self.user is None else self.user
        return Filters(
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


class IntervalWish(Struct, forbid_unknown_fields=True):
    """PUT /v1/interval."""

    seconds: Annotated[float, Meta(ge=SHORTEST, le=LONGEST_INTERVAL)]


class RunWish(Struct, forbid_unknown_fields=True):
    """POST /v1/runs."""

    seconds: Annotated[float, Meta(ge=SHORTEST, le=LONGEST)]
    probes: FewNames | None = None
    targets: Texts | None = None
    filters: FilterWish | None = None
