# SPDX-License-Identifier: Apache-2.0
"""Commands that read a Source without a screen: `stream` and `record`."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Any, TextIO

from probes.core.frame import Frame
from probes.core.sample import Sample
from probes.host.files import printable
from probes.host.output import write
from probes.latency.sample import Target
from probes.recording.file import Writer
from probes.report.stream import dumps, stream_object
from probes.source import Source
from tui.registry import REGISTRY
from tui.settings.validators import UsageError
from tui.shared.notices import sentences

Complain = Callable[[str], None]
"""Takes one line for standard error."""


class Feed:
    """A Source's Frames, one after the other, until it ends or a signal arrives."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.ended: str | None = None
        self.signal: int | None = None
        self._queue: SimpleQueue[Frame | None] = SimpleQueue()

    def frames(self) -> Generator[Frame, None, None]:
        """Yield Frames as they arrive; stop the source at the end."""
        try:
            self.source.start(self._queue.put, self._end)
            while (frame := self._queue.get()) is not None and self.signal is None:
                yield frame
        finally:
            self.source.stop()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """End the Frames, not the process, on SIGINT, SIGTERM and SIGHUP."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # A signal that nohup or a shell's background job ignores stays ignored.
        heard = [number for number in wanted if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._signalled) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def reader(self, out: TextIO) -> Iterator[None]:
        """End the Frames as soon as `out`, a pipe or a socket, has no reader any more."""
        try:
            number = out.fileno()
        except (OSError, ValueError):
            yield
            return
        over = os.eventfd(0, os.EFD_CLOEXEC)
        watch = threading.Thread(target=self._watch, args=(number, over), daemon=True)
        watch.start()
        try:
            yield
        finally:
            os.eventfd_write(over, 1)
            watch.join()
            os.close(over)

    def _watch(self, out: int, over: int) -> None:
        poll = select.poll()
        # poll reports errors and hang-ups without being asked.
        poll.register(out, 0)
        poll.register(over, select.POLLIN)
        if over not in dict(poll.poll()):
            self._queue.put(None)

    def status(self, done: bool) -> int:
        """The exit status: 0 after anything was `done`, also if a signal ended it."""
        if self.ended is not None:
            return 1
        return 128 + self.signal if self.signal is not None and not done else 0

    def _end(self, why: str) -> None:
        self.ended = why
        self._queue.put(None)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        self._queue.put(None)


class Settled:
    """Waits until no probe or target is starting, and reports failed ones once.

    It also reports changes of the filtered process and cgroup. `measured` is True if any probe or
    target has run.
    """

    def __init__(self, complain: Complain) -> None:
        self.measured = False
        self._complain = complain
        self._told: set[str] = set()
        self._told_of: set[str] = set()

    def __call__(self, frame: Frame) -> bool:
        states = []
        for name, sample in frame.samples.items():
            targets: Mapping[str, Target] = getattr(sample, "targets", {})
            parts = [(printable(spec), target) for spec, target in targets.items()]
            # A probe that measures targets measures nothing without one.
            own: list[tuple[str, Sample | Target]] = (
                [] if parts and sample.state == "on" else [(name, sample)]
            )
            for what, one in own + parts:
                states.append(one.state)
                if one.state == "failed" and what not in self._told:
                    self._told.add(what)
                    self._complain(f"{what}: {one.why}; {one.fix}")
        for notice in frame.notices:
            clock = time.strftime("%H:%M:%S", time.localtime(notice.time))
            shown = notice._replace(
                comm=printable(notice.comm or "?"), cgroup=printable(notice.cgroup or "?")
            )
            words = sentences(shown, clock, acts=False)[0]
            if words not in self._told_of:
                self._told_of.add(words)
                self._complain(words)
        self.measured |= "on" in states
        return "starting" not in states

    def status(self, status: int) -> int:
        """The exit status: 1 if nothing that was requested could be measured."""
        return 1 if self._told and not self.measured and not status else status


def over(base: Frame, now: Frame, seconds: float | None) -> bool:
    """True once `seconds` have passed, less half an interval because timers are inexact."""
    return seconds is not None and now.mono - base.mono >= seconds - now.interval / 2


def stream(source: Source, out: TextIO, seconds: float | None, complain: Complain) -> int:
    """Print the contract's object for every interval in which all probes ran from its start."""
    kinds = {entry.name: entry.probe_class() for entry in REGISTRY}
    feed, settled = Feed(source), Settled(complain)
    base: Frame | None = None
    last: Frame | None = None
    with feed.signals(), feed.reader(out):
        frames = feed.frames()
        try:
            for frame in frames:
                ready = settled(frame)
                if last is not None and base is not None:
                    line = dumps(stream_object(last, frame, kinds)) + "\n"
                    # A pipe's reader, such as head, may stop early.
                    if not write(line, out) or over(base, frame, seconds):
                        break
                if ready or last is not None:
                    base, last = base or frame, frame
        finally:
            _close(frames)
    if feed.ended is not None:
        complain(feed.ended)
    return settled.status(feed.status(done=base is not last))


def record(
    source: Source, path: str, seconds: float | None, complain: Complain, *, force: bool = False
) -> int:
    """Write every Frame to a new file, which is complete whenever the command ends."""
    feed, settled = Feed(source), Settled(complain)
    base: Frame | None = None
    # The source has dropped privileges, so the file belongs to the invoking user.
    with feed.signals(), _writer(source, path, force) as writer:
        frames = feed.frames()
        try:
            for frame in frames:
                writer.write(frame)
                if settled(frame) and base is None:
                    base = frame
                elif base is not None and over(base, frame, seconds):
                    break
        finally:
            _close(frames)
    if feed.ended is not None:
        complain(feed.ended)
    complain(f"{writer.frames} frames, {writer.size / 1000:.0f} kB in {printable(path)}")
    return settled.status(feed.status(done=writer.frames > 0))


def check_new(path: str, force: bool) -> None:
    """Raise UsageError if the file exists, before anything is started."""
    if os.path.lexists(path) and not force:
        fix = "choose another name, or replace it with --force"
        raise UsageError(f"OUT {printable(path)}: it exists already", fix)


def _writer(source: Source, path: str, force: bool) -> Writer:
    try:
        return Writer(path, force=force)
    except Exception:
        source.stop()
        raise


def _close(frames: Any) -> None:
    """Stop the source now; a generator that is only dropped stops it later."""
    frames.close()
