# SPDX-License-Identifier: Apache-2.0
"""Messages about the filtered process and cgroup: they ended, were removed or were re-created."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from probes.core.frame import Frame, Notice
from tui.shared.text import clip, fmt_ns, safe, shorten, width
from tui.shared.theme import Theme

FOLLOWED_SECONDS = 60.0
"""Seconds that the screen reports a re-created cgroup; it is counted again, so nothing is wrong."""
LEAST_PATH = 8
"""Least cells of a cgroup's path."""
MOST, LONGEST_NAME, LONGEST_PATH = 8, 64, 4096
"""Most notices of a Frame that are read, and most characters of their texts, because a remote host
may send more than any kernel does."""
GONE = ("process_ended", "cgroup_removed")
"""Kinds of notices after which no event passes the filters."""
PASSING = ("cgroup_followed", "pid_of_namespace")
"""Kinds of notices that are shown for a while."""


def current(frame: Frame) -> list[Notice]:
    """The screen's notices at the moment of a Frame, the newest first."""
    found = [
        notice
        for notice in frame.notices[:MOST]
        if notice.kind in GONE
        or (notice.kind in PASSING and frame.time - notice.time < FOLLOWED_SECONDS)
    ]
    return sorted(found, key=lambda notice: -notice.time)


def has_gone(frame: Frame) -> bool:
    """True if no event can pass the filters any more."""
    return any(notice.kind in GONE for notice in frame.notices[:MOST])


def sentences(notice: Notice, clock: str, acts: bool) -> list[str]:
    """A notice's texts from long to short; `acts` is True if keys can change the filters."""
    if notice.kind == "process_ended":
        key = ": p ends the filter" if acts else ""
        named = f"process {notice.pid} ({notice.comm}) ended {clock}{key}"
        return [named, f"process {notice.pid} ended {clock}{key}"]
    if notice.kind == "pid_of_namespace":
        taken = f"process {notice.pid} ({notice.comm}) of this pid namespace is counted"
        return [f"{taken}; rows have the machine's pids", taken]
    if notice.kind == "cgroup_removed":
        gone = f"cgroup {notice.cgroup} was removed {clock}: nothing is counted"
        until = f"{gone} until it is made again"
        return [*([f"{until}, F changes the filter"] if acts else []), until, gone]
    again = f"cgroup {notice.cgroup} was made again {clock}, and is counted"
    if notice.seconds is None:
        return [again]
    return [f"{again}; not counted for up to {fmt_ns(notice.seconds * 1e9)} before", again]


def fitting(notice: Notice, theme: Theme, acts: bool, cells: int) -> str:
    """The longest text of a notice that fits into `cells` cells, made safe."""
    more, path = theme.glyphs.more, safe((notice.cgroup or "")[:LONGEST_PATH], theme.plain)
    clock = time.strftime("%H:%M:%S", time.localtime(notice.time))
    comm = safe((notice.comm or "?")[:LONGEST_NAME], theme.plain)
    shown = notice._replace(comm=comm, cgroup=path)
    texts = sentences(shown, clock, acts)
    room = cells - width(texts[-1]) + width(path)
    shorter = shown._replace(cgroup=shorten(path, max(LEAST_PATH, room), more))
    texts.append(sentences(shorter, clock, acts)[-1])
    return next((text for text in texts if width(text) <= cells), clip(texts[-1], cells, more))


def of(frame: Frame | None, theme: Theme, acts: bool) -> Callable[[int], str] | None:
    """A function that returns the newest notice for a number of cells; None without a notice."""
    found = [] if frame is None else current(frame)
    return partial(fitting, found[0], theme, acts) if found else None
