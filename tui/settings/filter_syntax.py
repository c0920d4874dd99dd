# SPDX-License-Identifier: Apache-2.0
"""The syntax of kernel filters in the dashboard: "pid=123 comm=nginx user=www-data"."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from probes.core.errors import ProbeError
from probes.core.frame import Filters
from tui.settings import validators as checks

EXAMPLE = "pid=N comm=NAME user=NAME cgroup=/PATH"
_CHECKS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    # name: (field of Filters, validator)
    "pid": ("pid", checks.check_pid),
    "comm": ("comm", checks.check_comm),
    "user": ("uid", checks.check_user),
    "uid": ("uid", checks.check_user),
    "cgroup": ("cgroup", checks.check_cgroup),
}
_REMOTE_CHECKS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    # for a remote host, whose processes, users and cgroups are unknown here
    "pid": ("pid", checks.check_remote_pid),
    "comm": ("comm", checks.check_comm),
    "user": ("uid", checks.check_remote_user),
    "uid": ("uid", checks.check_remote_user),
    "cgroup": ("cgroup", checks.check_remote_cgroup),
}


def parse_filters(text: str, remote: bool = False) -> Filters:
    """Parse filters; an empty text has none. With `remote`, they are for a remote host.

    Raises ProbeError with the reason and the remedy.
    """
    known = _REMOTE_CHECKS if remote else _CHECKS
    try:
        words = shlex.split(text)
    except ValueError:
        raise ProbeError("a quote is not closed", "close it or leave it out") from None
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise ProbeError(f"'{word}' is not a filter", f"write {EXAMPLE}")
        if name not in known:
            raise ProbeError(f"unknown filter '{name}'", f"write {EXAMPLE}")
        field, check = known[name]
        if field in found:
            raise ProbeError(f"{name} is given twice", "a filter holds one value of each")
        try:
            found[field] = check(value)
        except ProbeError as error:
            raise ProbeError(f"{word}: {error.why}", error.fix) from None
    return Filters(**found)
