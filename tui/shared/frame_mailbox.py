# SPDX-License-Identifier: Apache-2.0
"""A mailbox that holds one Frame between the source's thread and the screen.

A new Frame is merged into one that was not taken yet, so that Frames never queue up and no exec
event is lost.
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
        """Put a Frame; return True if the mailbox was empty and the reader must be notified."""
        with self._lock:
            was_empty = self._frame is None
            self._frame = frame if self._frame is None else frame.merged_after(self._frame)
            return was_empty

    def take(self) -> Frame | None:
        """Take the Frame, or None; the mailbox is empty afterwards."""
        with self._lock:
            frame, self._frame = self._frame, None
            return frame
