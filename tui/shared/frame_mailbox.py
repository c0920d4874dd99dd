# SPDX-License-Identifier: Apache-2.0
"""A mailbox of one Frame between the source's thread and the screen: the latest wins.

A screen that is slow, or paused, finds one Frame that stands for all it has missed, so no
Frame is ever queued and no event of an exec is lost.
"""

from __future__ import annotations

import threading

from probes.core.frame import Frame


class Mailbox:
    """Holds at most one Frame."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frame: Frame | None = None

    def put(self, frame: Frame) -> bool:
        """Leave a Frame; True if the box was empty, so that its reader must be told."""
        with self._lock:
            was_empty = self._frame is None
            self._frame = frame if self._frame is None else frame.merged_after(self._frame)
            return was_empty

    def take(self) -> Frame | None:
        """The Frame, if there is one; the box is empty afterwards."""
        with self._lock:
            frame, self._frame = self._frame, None
            return frame
