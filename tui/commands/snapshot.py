# SPDX-License-Identifier: Apache-2.0
"""The command `snapshot`: some seconds of a Source, without a screen, as one file."""

from __future__ import annotations

from probes.host.files import printable
from probes.recording.history import History
from probes.source import Source
from tui.app.preloaded import DRAWN
from tui.commands.stream_record import Complain, Feed, Settled, over
from tui.export.write import check_folder, content, ending_of, new_summarizer, write_file

SECONDS = 10.0
"""How long it looks if nobody says so."""


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
                from tui.app.offscreen import draw

                screen = draw(history.between(DRAWN))
            size = write_file(path, content(summarizer, ending, screen), force)
            complain(f"{summarizer.seconds:.1f} s, {size / 1000:.0f} kB in {printable(path)}")
    if feed.ended is not None:
        complain(feed.ended)
    return settled.status(feed.status(done))
