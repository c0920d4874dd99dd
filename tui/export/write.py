# SPDX-License-Identifier: Apache-2.0
"""A run of Frames as a file: HTML, JSON or SVG, by the ending of its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from probes.core.errors import ProbeError
from probes.core.frame import Frame
from probes.host import file_maker
from probes.host.files import unusable
from probes.report.stream import dumps
from probes.report.summary import Summarizer, Summary
from probes.sums.summary_limits import LIMITS
from tui.registry import REGISTRY
from tui.shared.gc_pause import gc_paused

ENDINGS = (".html", ".json", ".svg")
MOST_BYTES = 1_000_000
"""A file for a ticket is not larger than this: its tables end earlier where it would be."""
SHRINKS = 16


def ending_of(path: str) -> str:
    """The ending that tells what the file is to be; raises ProbeError for any other."""
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        endings = f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
        raise ProbeError("the ending says what is written", f"let the name end in {endings}")
    return ending


def new_summarizer() -> Summarizer:
    """A Summarizer of all probes."""
    return Summarizer({entry.name: entry.probe_class() for entry in REGISTRY})


def content(summarizer: Summarizer, ending: str, screen_svg: str | None) -> str:
    """What is to be in the file; tables are cut shorter until it is small enough."""
    if ending == ".svg":
        return screen_svg or ""
    part = 1.0
    for _ in range(SHRINKS):
        text = _rendered(summarizer.summary(LIMITS.scaled(part)), ending, screen_svg)
        size = len(text.encode("utf-8"))
        if size <= MOST_BYTES:
            break
        part *= min(0.9, 0.95 * MOST_BYTES / size)
    return text


def _rendered(summary: Summary, ending: str, screen_svg: str | None) -> str:
    if ending == ".json":
        return dumps(summary) + "\n"
    # The template engine is for this alone: a dashboard does not start any later for it.
    from tui.export.html import snapshot_page

    return snapshot_page(summary, screen_svg)


def export(
    frames: Iterable[Frame],
    screen_svg: str | None,
    path: str,
    force: bool = False,
    *,
    prepared: Callable[[], None] = lambda: None,
) -> int:
    """Write what these Frames tell to a new file; returns its bytes.

    Raises ProbeError where that cannot be: then no part of the file stays. `prepared` is called
    before the file is made.
    """
    ending = ending_of(path)
    summarizer = new_summarizer()
    with gc_paused():
        for frame in frames:
            summarizer.add(frame)
    if summarizer.frames < 2 and ending != ".svg":
        raise ProbeError("there is nothing to export yet", "wait for an interval to pass")
    text = content(summarizer, ending, screen_svg)
    prepared()
    return write_file(path, text, force)


def check_folder(path: str) -> None:
    """Raises ProbeError if no file can be made there, before there is anything to write."""
    maker = file_maker.current()
    if maker is not None:
        maker.check(path)
        return
    folder = os.path.dirname(path) or "."
    try:
        os.stat(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "")
    except OSError as error:
        raise unusable("create", path, error) from error


def write_file(path: str, text: str, force: bool = False) -> int:
    """Make a file with this text, see `probes.host.file_maker.write`; returns its bytes."""
    data = text.encode("utf-8", "replace")
    file_maker.write(path, data, force)
    return len(data)
