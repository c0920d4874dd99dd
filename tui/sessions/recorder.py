# SPDX-License-Identifier: Apache-2.0
"""Writes a recording of the Frames that the dashboard receives."""

from __future__ import annotations

import re
import threading
import time

from probes.core.errors import ProbeError
from probes.core.frame import Frame
from probes.recording.file import Writer


def default_name(host: str, now: float, ending: str) -> str:
    """A file name with host and local time, such as "probetop-web-3-20261125-031559.ptrec"."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", host).strip("-.")[:64] or "host"
    return f"probetop-{name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}{ending}"


class Recorder:
    """Writes Frames to a file from `begin` to `end`.

    `write` may be called from another thread; it does nothing without an open file.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writer: Writer | None = None

    @property
    def path(self) -> str | None:
        """The path of the open file; None if there is none."""
        writer = self._writer
        return None if writer is None else str(writer.path)

    @property
    def size(self) -> int | None:
        """Bytes written so far; None without an open file."""
        writer = self._writer
        return None if writer is None else writer.size

    def begin(self, path: str) -> None:
        """Create the file; raises ProbeError if that fails."""
        if not path:
            raise ProbeError("no file name", "type one")
        self._writer = Writer(path)

    def write(self, frame: Frame) -> str | None:
        """Append a Frame to the open file, if any.

        Returns None, or a sentence if the write failed; the recording has then ended.
        """
        with self._lock:
            writer = self._writer
            if writer is None:
                return None
            try:
                writer.write(frame)
            except ProbeError as error:
                self._writer = None
                writer.close()
                return f"recording ended: {error}"
        return None

    def end(self) -> tuple[str, int, int]:
        """Close the file; return its path, number of Frames and bytes, or ("", 0, 0) without a
        file."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is None:
            return "", 0, 0
        writer.close()
        return str(writer.path), writer.frames, writer.size
