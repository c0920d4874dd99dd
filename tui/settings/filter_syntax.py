# SPDX-License-Identifier: Apache-2.0
"""Kernel filters as people type them in the dashboard: "pid=123 comm=nginx user=www-data"."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from probes.core.errors import ProbeError
from probes.core.frame import Filters
from tui.settings import validators as checks

EXAMPLE = "pid=N comm=NAME user=NAME cgroup=/PATH"
_CHECKS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    # what is typed: (field of Filters, check)
    "pid": ("pid", checks.check_pid),
    "comm": ("comm", checks.check_comm),
    "user": ("uid", checks.check_user),
    "uid": ("uid", checks.check_user),
    "cgroup": ("cgroup", checks.check_cgroup),
}
_FAR_CHECKS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    # of another machine, whose processes, users and cgroups nobody here knows
    "pid": ("pid", checks.check_far_pid),
    "comm": ("comm", checks.check_comm),
    "user": ("uid", checks.check_far_user),
    "uid": ("uid", checks.check_far_user),
    "cgroup": ("cgroup", checks.check_far_cgroup),
}


def parse_filters(text: str, far: bool = False) -> Filters:
    """The filters that `text` asks for; none for an empty text. `far`: of another machine.

    Raises ProbeError, in words for the one who typed, for anything that is not right.
    """
    known = _FAR_CHECKS if far else _CHECKS
    try:
        words = shlex.split(text)
    except ValueError:
        raise ProbeError("a quote is not closed", "close it or leave it out") from None
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise ProbeError(f"'{word}' is no filter", f"write {EXAMPLE}")
        if name not in known:
            raise ProbeError(f"there is no filter '{name}'", f"write {EXAMPLE}")
        field, check = known[name]
        if field in found:
            raise ProbeError(f"{name} is given twice", "a filter holds one value of each")
        try:
            found[field] = check(value)
        except ProbeError as error:
            raise ProbeError(f"{word}: {error.why}", error.fix) from None
    return Filters(**found)
