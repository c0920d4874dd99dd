# SPDX-License-Identifier: Apache-2.0
"""A snapshot as a page, made in a process of its own: the only part that imports Textual.

The broker starts it as a helper: `prepare` with privileges, `make` without.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from probes.framing import Decoder
from probes.samples import Frame
from tui.export.write import content, new_summarizer
from tui.snapshot import DRAWN, preload

CHUNK = 1 << 16


def prepare() -> None:
    """Import all that is needed, while the files can be read."""
    preload("page.html")()


def make(fds: Sequence[int]) -> dict[str, Any]:
    """Reads records of Frames from the first descriptor and writes a page to the second."""
    from tui.export.picture import draw

    source, page = fds
    summarizer, frames = new_summarizer(), []
    for frame in _frames(source):
        summarizer.add(frame)
        frames.append(frame)
    screen = draw([frame for frame in frames if frame.mono >= frames[-1].mono - DRAWN])
    with open(page, "wb", closefd=False) as file:
        size = file.write(content(summarizer, ".html", screen).encode("utf-8", "replace"))
    return {"bytes": size}


def _frames(fd: int) -> Iterator[Frame]:
    decoder = Decoder()
    os.lseek(fd, 0, os.SEEK_SET)
    while data := os.read(fd, CHUNK):
        yield from (item for item in decoder.feed(data) if isinstance(item, Frame))
