# SPDX-License-Identifier: Apache-2.0
"""A recording as a Timeline: any Frame by its number, read from the file when it is asked for.

Opening reads the file once, to check every record's checksum and to note where it is and of
which moment; Frames are decoded later. What is damaged is left out and said. So is what is
not later than what comes before it, as a copied block would be.
"""

from __future__ import annotations

import re
import zlib
from array import array
from pathlib import Path

from probes.core.limits import ANY_FLOAT, CodecError
from probes.recording import bounded_json
from probes.recording.file import Reader, Record
from probes.recording.timeline import Parsed, Timeline

MOST_FRAMES = 8_000_000
"""Frames of a recording, three months at one a second: noting where each is takes 32 bytes."""
_HEAD_BYTES = 96
_MONO = re.compile(rb'\{(?:"time":[-+.\deE]+,)?"mono":([-+.\deE]+)')


class Recording(Timeline):
    """The Frames of a recording, from 0 on."""

    def __init__(self, path: str | Path) -> None:
        """Opens and checks the file; raises ProbeError unless it is a recording."""
        self.short = False
        self._reader = Reader(path)
        self._starts, self._ends = array("Q"), array("Q")
        self._keys, self._monos = array("L"), array("d")
        last: Record | None = None
        for record, payload in self._reader.records():
            mono = _mono(payload)
            # Changes must go on from what is noted: another copy of it is as good.
            follows = record.whole or (last is not None and last.checksum == record.seed)
            if mono is None or not follows or (self._monos and mono <= self._monos[-1]):
                self._reader.damaged(record.start, record.end)
                continue
            if len(self._monos) >= MOST_FRAMES:
                self.short = True
                break
            self._keys.append(len(self._keys) if record.whole else self._keys[-1])
            self._starts.append(record.start)
            self._ends.append(record.end)
            self._monos.append(mono)
            last = record

    @property
    def damage(self) -> str | None:
        """What could not be read, as one sentence."""
        if self.short:
            return f"only the first {MOST_FRAMES} frames of the recording are shown"
        if self._reader.damage is None and self.unreadable is not None:
            return f"frame {self.unreadable + 1} of the recording cannot be read"
        return self._reader.damage

    def close(self) -> None:
        """Closes the file."""
        self._reader.close()

    @property
    def first(self) -> int:
        """0."""
        return 0

    @property
    def end(self) -> int:
        """How many Frames can be read."""
        return len(self._starts)

    def mono(self, number: int) -> float:
        """A Frame's monotonic seconds, as recorded."""
        return self._monos[number]

    def key(self, number: int) -> int:
        """The whole Frame before."""
        return self._keys[number]

    def weight(self, number: int) -> int:
        """Bytes in the file."""
        return self._ends[number] - self._starts[number]

    def value(self, number: int, light: bool = False) -> Parsed:
        """The record's JSON; CodecError where the file was changed since it was opened."""
        try:
            payload = self._reader.payload(self._starts[number], self._ends[number])
        except OSError as error:
            raise CodecError(str(error)) from error
        text = bounded_json.inflate(payload)
        return Parsed(bounded_json.decode(text), len(text))


def _mono(payload: bytes) -> float | None:
    """The moment of a record, which stands at its beginning, without decoding the rest."""
    try:
        head = zlib.decompressobj().decompress(payload, _HEAD_BYTES)
        found = _MONO.match(head)
        mono = None if found is None else float(found[1])
        # What the decoder would refuse is no moment: no clock can show it.
        return mono if mono is not None and ANY_FLOAT.low <= mono <= ANY_FLOAT.high else None
    except (zlib.error, ValueError):
        return None
