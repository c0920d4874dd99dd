# SPDX-License-Identifier: Apache-2.0
"""Recordings: Frames in a file that survives crashes, full disks and damage.

A file is the line "PROBETOP RECORDING 1\\n" (the number is the version), then the records of
`probes.recording.framing`. Where a record is damaged, reading goes on at the next whole Frame.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from probes.core.errors import ProbeError
from probes.core.frame import Frame
from probes.core.limits import MOST_PACKED, MOST_TEXT, CodecError
from probes.host import file_maker
from probes.host.files import new_file, open_regular, printable, unusable
from probes.recording import bounded_json
from probes.recording.codec import FrameCodec
from probes.recording.framing import DELTA, HEADER, KEY, Encoder
from probes.recording.state_size import copied

MAGIC = b"PROBETOP RECORDING "
VERSION = 1
WASTE_TIMES, WASTE_BYTES = 8, 256 << 20
"""How much work damage may cost: so many times the bytes of the file, and so many more. Each byte
that is checked or decompressed in vain counts; a file that was cut, copied or overwritten in
places takes about one byte of work for each of its bytes."""
MOST_CHANGES = 600
"""Changes from one whole Frame to the next: a writer makes 59, a reader takes no more than this."""
ROWS_TIMES, ROWS = 64, 20_000_000
"""How many rows changes may copy: so many for each byte of the file, and so many more. A writer's
whole Frame has a row in some 3 bytes, and is changed 59 times, which is 20 for each byte."""
_BLOCK = 1 << 16


def create_file(path: str | Path, *, force: bool = False) -> int:
    """A descriptor of a new file that only its owner may read (mode 0600).

    A symbolic link is never followed and a file that is there never overwritten, unless
    `force` replaces it. Raises ProbeError.
    """
    maker = file_maker.current()
    if maker is not None:
        return maker.create(str(path), force)
    return new_file(path, force=force)


class Writer:
    """Appends Frames to a new recording; each is on its way to the disk when `write` returns.

    After any number of whole records the file is a valid recording, so nothing is lost when
    the program dies but the record that was being written.
    """

    def __init__(self, path: str | Path, *, force: bool = False) -> None:
        """Creates the file; raises ProbeError where that cannot be."""
        self.path = path
        self.frames = 0
        self.size = 0
        self._encoder = Encoder()
        self._fd = create_file(path, force=force)
        self._append(MAGIC + b"%d\n" % VERSION)

    def write(self, frame: Frame) -> None:
        """Appends one Frame; on a full disk the file ends after the Frame before (ProbeError)."""
        self._append(self._encoder.frame(frame))
        self.frames += 1

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise unusable("write to", self.path, error) from error
        self.size += len(data)

    def close(self) -> None:
        """Ends the recording; calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


class Record(NamedTuple):
    """A record whose checksum holds: where it begins and ends, what its checksum goes on from.

    `whole` tells a whole Frame from changes; those go on from a record with checksum `seed`.
    """

    start: int
    end: int
    whole: bool
    seed: int
    checksum: int


class Reader:
    """The Frames of a recording, in order; each iteration starts at the first.

    `damage` is None or, after an iteration, one sentence about what could not be read. A file
    that costs more work than its size explains (made to keep readers busy) ends there.
    """

    def __init__(self, path: str | Path) -> None:
        """Opens the file; raises ProbeError unless it is a recording of a known version."""
        self.path = path
        self._codec = FrameCodec()
        self._fd = -1
        self.forget_damage()
        try:
            self._fd = open_regular(path)
            self._start = self._check()
        except (OSError, ValueError) as error:
            self.close()
            raise unusable("read", path, error) from error
        except ProbeError:
            self.close()
            raise

    def _check(self) -> int:
        """The offset of the first record."""
        name = printable(self.path)
        line, newline, _ = os.pread(self._fd, 64, 0).partition(b"\n")
        version = line.removeprefix(MAGIC)
        if not line.startswith(MAGIC) or not newline or not version.isdigit():
            fix = "give a file that `probetop record` wrote"
            raise ProbeError(f"{name} is not a probetop recording", fix)
        if version != b"%d" % VERSION:
            why = f"{name} is a recording of version {version[:9].decode()}, not {VERSION}"
            raise ProbeError(why, "replay it with the version of probetop that wrote it")
        return len(line) + 1

    @property
    def damage(self) -> str | None:
        """What could not be read so far, as one sentence."""
        if not self._places:
            return None
        where = "1 place" if self._places == 1 else f"{self._places} places"
        return f"the recording is damaged in {where}: {self._skipped} bytes of it were skipped"

    def forget_damage(self) -> None:
        """Count damage from zero."""
        self._places = self._skipped = self._wasted = self._rows = 0
        self._spent = False
        self._damaged_to = -1

    def damaged(self, start: int, end: int) -> None:
        """Count bytes that are no use; next to the last ones they are the same place."""
        self._places += start != self._damaged_to
        self._skipped += end - start
        self._damaged_to = end

    def __iter__(self) -> Iterator[Frame]:
        self.forget_damage()
        frame: Frame | None = None
        for record, payload in self.records():
            frame = self._decoded(record, payload, frame)
            if frame is None:
                self.damaged(record.start, record.end)
            else:
                yield frame

    def _decoded(self, record: Record, payload: bytes, before: Frame | None) -> Frame | None:
        if before is None and not record.whole:
            return None
        try:
            text = bounded_json.inflate(payload)
        except CodecError:
            self._wasted += min(MOST_TEXT, bounded_json.MOST_TIMES * len(payload))
            return None
        try:
            value = bounded_json.decode(text)
            frame = self._codec.decode(value, None if record.whole else before, len(text))
        except CodecError:
            self._wasted += len(text)
            return None
        if before is not None and not record.whole:
            self._rows += copied(frame, before)
            self._spent = self._rows > ROWS_TIMES * record.end + ROWS
        return frame

    def records(self) -> Iterator[tuple[Record, bytes]]:
        """All sound records with their payloads, in the order of the file."""
        position = self._start
        end = os.fstat(self._fd).st_size
        last: Record | None = None
        changes = 0
        while position < end:
            found = self._record(position, last)
            changes = changes + 1 if found is not None and not found[0].whole else 0
            if found is None or changes > MOST_CHANGES:
                resume = self._next_whole(position + 1, end)
                self.damaged(position, resume)
                position = resume
            else:
                last, position = found[0], found[0].end
                yield found
            if self._spent or self._wasted > WASTE_TIMES * end + WASTE_BYTES:
                self.damaged(position, end)
                return

    def payload(self, start: int, end: int) -> bytes:
        """The payload of a record that lies there."""
        return os.pread(self._fd, end - start - HEADER.size, start + HEADER.size)

    def _record(self, position: int, last: Record | None) -> tuple[Record, bytes] | None:
        """The record at `position`, which may follow `last`; None if it is damaged."""
        header = os.pread(self._fd, HEADER.size, position)
        if len(header) < HEADER.size:
            return None
        mark, length, checksum = HEADER.unpack(header)
        whole = mark == KEY
        if mark not in (KEY, DELTA) or length > MOST_PACKED or (last is None and not whole):
            return None
        seed = 0 if whole or last is None else last.checksum
        end = position + HEADER.size + length
        payload = self.payload(position, end)
        if len(payload) < length or zlib.crc32(payload, seed) != checksum:
            self._wasted += len(payload) + HEADER.size
            return None
        return Record(position, end, whole, seed, checksum), payload

    def _next_whole(self, position: int, end: int) -> int:
        """Where the next sound whole Frame begins; `end` if none does, or too much was in vain."""
        most = WASTE_TIMES * end + WASTE_BYTES
        while position < end and self._wasted <= most:
            block = os.pread(self._fd, _BLOCK, position)
            offset = block.find(KEY)
            while offset >= 0 and self._wasted <= most:
                if self._record(position + offset, None) is not None:
                    return position + offset
                offset = block.find(KEY, offset + 1)
            # A mark may lie across two blocks.
            position += max(1, len(block) - len(KEY) + 1)
            if not any(block):
                position = self._after_hole(position, end)
        return end

    def _after_hole(self, position: int, end: int) -> int:
        """Where data begins, from here on: a sparse file may have terabytes of nothing."""
        try:
            return max(position, os.lseek(self._fd, position, os.SEEK_DATA))
        except OSError:
            return end

    def close(self) -> None:
        """Closes the file; calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
