# SPDX-License-Identifier: Apache-2.0
"""The command `snapshot`: some seconds of a Source, without a screen, as one file."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module

from probes.base import Source
from probes.files import printable
from probes.history import History
from tui.commands.stream_record import Complain, Feed, Settled, over
from tui.export.write import check_folder, content, ending_of, new_summarizer, write_file
from tui.registry import REGISTRY

SECONDS = 10.0
"""How long it looks if nobody says so."""
DRAWN = 60.0
"""The seconds that the picture's graphs may show."""


def preload(path: str) -> Callable[[], None]:
    """What imports everything that writing this file needs, while it can still be read."""

    def load() -> None:
        ending = ending_of(path)
        if ending != ".json":
            # The picture is of an ordinary terminal, whatever this is run from.
            os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
            os.environ.pop("NO_COLOR", None)
            import_module("tui.export.picture")
            for entry in REGISTRY:
                entry.pane_class()
        if ending == ".html":
            import_module("tui.export.html").preload()

    return load


def snapshot(
    source: Source, path: str, seconds: float, complain: Complain, *, force: bool = False
) -> int:
    """Looks for so many seconds from when all probes run, then writes; returns the exit status.

    An interrupt ends the looking early. Raises ProbeError where the file cannot be.
    """
    feed, settled = Feed(source), Settled(complain)
    summarizer, ending = new_summarizer(), ending_of(path)
    history = History(DRAWN)
    try:
        check_folder(path)
    except Exception:
        source.stop()
        raise
    with feed.signals():
        frames = feed.frames()
        try:
            for frame in frames:
                if not settled(frame) and summarizer.first is None:
                    continue
                summarizer.add(frame)
                history.add(frame)
                if summarizer.first is not None and over(summarizer.first, frame, seconds):
                    break
        finally:
            frames.close()
        done = summarizer.frames > 1
        if done:
            screen = None
            if ending != ".json":
                from tui.export.picture import draw

                screen = draw(history.between(DRAWN))
            size = write_file(path, content(summarizer, ending, screen), force)
            complain(f"{summarizer.seconds:.1f} s, {size / 1000:.0f} kB in {printable(path)}")
    if feed.ended is not None:
        complain(feed.ended)
    return settled.status(feed.status(done))
