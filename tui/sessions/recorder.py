# SPDX-License-Identifier: Apache-2.0
"""Writing a recording while the dashboard shows the same Frames."""

from __future__ import annotations

import re
import threading
import time

from probes.core.errors import ProbeError
from probes.core.frame import Frame
from probes.recording.file import Writer


def default_name(host: str, now: float, ending: str) -> str:
    """A file name that tells the host and the time: "probetop-web-3-20261125-031559.ptrec"."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", host).strip("-.")[:64] or "host"
    return f"probetop-{name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}{ending}"


class Recorder:
    """Writes Frames to a file from `begin` to `end`.

    `write` may be called by another thread than the others, and costs nothing in between.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writer: Writer | None = None

    @property
    def path(self) -> str | None:
        """The file that is written now, if any."""
        writer = self._writer
        return None if writer is None else str(writer.path)

    @property
    def size(self) -> int | None:
        """Its bytes so far."""
        writer = self._writer
        return None if writer is None else writer.size

    def begin(self, path: str) -> None:
        """Make the file; raises ProbeError where that cannot be."""
        if not path:
            raise ProbeError("no file name", "type one")
        self._writer = Writer(path)

    def write(self, frame: Frame) -> str | None:
        """Append a Frame, if there is a file; one sentence where it could not be, which ends it."""
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
        """Close the file: its path, how many Frames and how many bytes it has."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is None:
            return "", 0, 0
        writer.close()
        return str(writer.path), writer.frames, writer.size
