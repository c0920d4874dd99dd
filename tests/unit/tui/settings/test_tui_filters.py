# SPDX-License-Identifier: Apache-2.0
"""Kernel filters as typed in the dashboard."""

from __future__ import annotations

import os

import pytest

from probes.core.errors import ProbeError
from probes.core.frame import NO_FILTERS, Filters
from tui.settings.filter_syntax import parse_filters


def test_what_is_typed_becomes_filters() -> None:
    pid = os.getpid()
    assert parse_filters("") == NO_FILTERS
    assert parse_filters(f" pid={pid}  comm='a b' user=root") == Filters(pid, "a b", 0)
    assert parse_filters("uid=65000") == Filters(uid=65000)


def test_what_only_another_machine_knows_is_left_to_it() -> None:
    found = parse_filters("pid=4000000 comm=a user=4242 cgroup=/nowhere/here", remote=True)
    assert found == Filters(4000000, "a", 4242, "/nowhere/here")
    for text in ("pid=x", "pid=0", "user=root", "uid=4294967295", "cgroup=nowhere", "port=1"):
        with pytest.raises(ProbeError):
            parse_filters(text, remote=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nginx", "'nginx' is not a filter: write pid=N"),
        ("pid=", "'pid=' is not a filter"),
        ("pid=x", "pid=x: not a process id"),
        ("port=1", "unknown filter 'port'"),
        ("comm=a comm=b", "comm is given twice"),
        ("uid=1 user=root", "user is given twice"),
        ("user=no-such-user-here", "no such user"),
        ("comm=abcdefghijklmnop", "15 bytes"),
        ("comm='a", "a quote is not closed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, why: str) -> None:
    with pytest.raises(ProbeError) as caught:
        parse_filters(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
