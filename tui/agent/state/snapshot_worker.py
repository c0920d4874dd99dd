# SPDX-License-Identifier: Apache-2.0
"""Makes a snapshot's page in its own process: the only part that imports Textual.

The broker starts it as a helper: `prepare` runs with privileges, `make` without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from probes.core.frame import Frame
from probes.host import content_file
from probes.recording.framing import Decoder
from tui.app.preloaded import DRAWN, for_file
from tui.export.write import content, new_summarizer


def prepare() -> None:
    """Import all that is needed, while the files are readable."""
    for_file("page.html")
    new_summarizer()


def make(fds: Sequence[int]) -> dict[str, Any]:
    """Read records of Frames from the first descriptor and write a page to the second."""
    from tui.app.offscreen import draw

    source, page = fds
    summarizer, frames = new_summarizer(), []
    for frame in _frames(source):
        summarizer.add(frame)
        frames.append(frame)
    screen = draw([frame for frame in frames if frame.mono >= frames[-1].mono - DRAWN])
    text = content(summarizer, ".html", screen).encode("utf-8", "replace")
    return {"bytes": content_file.fill(page, [text])}


def _frames(fd: int) -> Iterator[Frame]:
    decoder = Decoder()
    for data in content_file.parts(fd):
        yield from (item for item in decoder.feed(data) if isinstance(item, Frame))
