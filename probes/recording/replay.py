# SPDX-License-Identifier: Apache-2.0
"""A recording as a Source: it plays at the pace at which it was recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from probes.core.errors import ProbeError
from probes.core.frame import Frame
from probes.core.sample import Sample
from probes.host.files import printable
from probes.recording.file import Reader
from probes.recording.index import Recording
from probes.source import Found

LONGEST_GAP = 5.0
"""Seconds that a hole in a recording is waited for at most, at its own pace."""


class ReplaySource:
    """Plays a recording; `loop` begins it anew at its end, for the demo.

    Frames keep their recorded `time`; `mono` and `generation` go on rising when it begins
    anew, so that nobody subtracts across. A probe that is toggled off is hidden, not stopped.
    """

    live = lifts = False

    def __init__(self, path: str | Path, *, loop: bool = False, title: str | None = None) -> None:
        """Opens the recording; raises ProbeError unless at least one Frame can be read."""
        self.title = title or f"replay of {printable(Path(path).name)}"
        self.speed = 1.0
        self._loop = loop
        self._reader = Reader(path)
        first = next(iter(self._reader), None)
        if first is None:
            self._reader.close()
            why = self._reader.damage or "the recording is empty"
            raise ProbeError(f"cannot replay {printable(path)}: {why}", "record it again")
        self._first = first
        self._interval = first.interval
        self._hidden: frozenset[str] = frozenset()
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def open_timeline(self) -> Recording | None:
        """The Frames by number, for who plays them himself; None where they loop.

        Raises ProbeError if none can be read.
        """
        if self._loop:
            return None
        recording = Recording(self._reader.path)
        if not len(recording):
            raise ProbeError("no frame of the recording can be read", "record it again")
        return recording

    def start(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        """Plays from the first Frame on, in a thread of its own."""
        self._thread = threading.Thread(
            target=self._play, args=(on_frame, on_end), name="replay", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ends at once; no Frame follows."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)
        self._reader.close()

    def toggle(self, probe: str, on: bool) -> None:
        """Shows or hides a probe of the recording; raises ProbeError if it has no such."""
        if on:
            if probe not in self._first.samples:
                why = f"the recording has no probe {probe!r}"
                raise ProbeError(why, f"it has {', '.join(sorted(self._first.samples))}")
            self._hidden -= {probe}
        else:
            self._hidden |= {probe}

    def set_option(self, probe: str, option: str, value: Any) -> None:
        """Raises ProbeError: what was measured is past."""
        why = f"{option} of {probe} cannot be changed in a recording"
        raise ProbeError(why, "switch it on while recording, or run probetop live as root")

    def set_filters(self, filters: Any) -> None:
        """Raises ProbeError: what was counted is past."""
        why = "filters in the kernel cannot be changed in a recording"
        raise ProbeError(why, "filter the rows by text with /, or run probetop live as root")

    def set_interval(self, seconds: float) -> None:
        """Plays so that one recorded interval takes this long; raises ProbeError below 0.02."""
        if not seconds >= 0.02:
            raise ProbeError(f"an interval of {seconds:g} s is too short", "choose 0.02 or more")
        self.speed = self._interval / seconds
        self._wake.set()

    def lift_budget(self, seconds: float) -> None:
        """Raises ProbeError: what was given up is past."""
        raise ProbeError("a recording has no budget to lift", "run probetop live as root")

    def search(self, query: str, on_found: Callable[[Sequence[Found]], None]) -> None:
        """Raises ProbeError: a recording cannot be asked for more than it has."""
        raise ProbeError("a recording cannot trace anything new", "run probetop live as root")

    def _play(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        count = 0
        try:
            last: Frame | None = None
            for frame in self._frames():
                if last is not None:
                    self._wait(min(frame.mono - last.mono, LONGEST_GAP + frame.interval))
                if self._stopped:
                    return
                last, self._interval, count = frame, frame.interval, count + 1
                on_frame(self.shown(frame))
        except OSError as error:
            if not self._stopped:
                on_end(f"The recording cannot be read any further: {error.strerror}.")
            return
        damage = f"; {self._reader.damage}" if self._reader.damage else ""
        on_end(f"The recording ends after {count} frames{damage}.")

    def _wait(self, seconds: float) -> None:
        """Waits that long in the recording's time; the speed may change meanwhile."""
        left = seconds
        while left > 0 and not self._stopped:
            speed, began = self.speed, time.monotonic()
            self._wake.wait(left / speed)
            self._wake.clear()
            left -= (time.monotonic() - began) * speed

    def _frames(self) -> Iterator[Frame]:
        """The recording's Frames, over and over where it loops."""
        mono, generation = 0.0, 0
        while True:
            top, end = 0, self._first
            for frame in self._reader:
                top = max([top, *(sample.generation for sample in frame.samples.values())])
                end = _moved(frame, mono, generation)
                yield end
            if not self._loop:
                return
            mono = end.mono + end.interval - self._first.mono
            generation += top + 1

    def shown(self, frame: Frame) -> Frame:
        """The Frame as the toggles want it."""
        hidden = self._hidden & frame.samples.keys()
        if not hidden:
            return frame
        samples = dict(frame.samples)
        for name in hidden:
            samples[name] = _off(samples[name])
        return replace(frame, samples=samples)


def _moved(frame: Frame, mono: float, generation: int) -> Frame:
    """The Frame in a later run of the loop."""
    if not generation:
        return frame
    samples = {
        name: replace(
            sample,
            generation=sample.generation + generation,
            since=None if sample.since is None else sample.since + mono,
        )
        for name, sample in frame.samples.items()
    }
    return replace(frame, mono=frame.mono + mono, samples=samples)


def _off(sample: Sample) -> Sample:
    """A hidden probe's Sample: its counters go on, so that showing it again shows no jump."""
    return replace(sample.without_events(), state="off")
