# SPDX-License-Identifier: Apache-2.0
"""Another machine as a Source: Frames over a link that may break, and commands to it.

A thread connects, hands on what comes, and connects again, after ever longer waits, when the
link broke or was silent. What the far side sends is decoded with all its types checked and
its sizes bounded. Each connection is a generation of its own on this machine's clock, so that
nobody subtracts across a gap in which the far side may have started anew.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol

from probes.core.errors import ProbeError
from probes.core.frame import Filters, Frame
from probes.core.limits import CodecError
from probes.core.sample import Sample
from probes.recording.framing import Decoder
from probes.remote import answers
from probes.remote.state import LinkState
from probes.source import Found

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds until it is tried again, at first and at most."""
ALIVE = 5.0
"""Seconds between signs of life to a far side that is there for us alone."""
SILENCE, LONGEST_SILENCE = 10.0, 30.0
"""Seconds without a byte, beside three intervals, after which a link is taken for dead, and most:
signs of life come between Frames that are far apart."""
LOGIN = 130.0
"""Seconds for the first Frame: servers give 120 for typing a password."""
PATIENCE = 3.0
"""Seconds after which who waits for the first Frame is told what for."""
SHARE, BURST = 0.5, 2.0
"""The part of the time that decoding may take, and seconds of it that it may have at once: a far
side that sends as fast as it can is read slower, and the screen stays alive."""
MOST_ENTRIES = 1 << 20
"""Entries in all tables of a Frame: above what the kernel side has rows for."""
GENERATIONS = 1 << 32
"""Between those of one connection and the next: nobody switches a probe as often."""


class Connection(Protocol):
    """A link that is up. `receive` gives bytes, b"" at its end."""

    def receive(self, seconds: float) -> bytes:
        """Wait for bytes; raises TimeoutError after so many seconds, OSError when it broke."""

    def send(self, command: Mapping[str, Any]) -> None:
        """Pass a command on, without waiting; raises OSError when that cannot be."""

    def why(self) -> ProbeError | None:
        """Why it ended, when it did by itself and that is known."""

    def hang_up(self) -> None:
        """End it, from any thread; whoever waits in `receive` comes back."""

    def close(self) -> None:
        """Let go of it, when nobody is in `receive`."""


class Transport(Protocol):
    """A way to a far machine. `remembers`: it keeps what it was told, over connections."""

    target: str
    remembers: bool

    def connect(self, answered: Callable[[Mapping[str, Any]], None], *, ask: bool) -> Connection:
        """A new connection; raises ProbeError. `answered` takes answers to commands that do not
        come with the Frames; `ask`: the terminal may be used to ask for a password."""


class Pace:
    """Bounds the CPU time in which Frames are received and decoded, by a token bucket."""

    def __init__(self, now: float) -> None:
        self._last, self._room = now, BURST

    def wait(self, worked: float, now: float) -> float:
        """Seconds to wait after `worked` CPU seconds that ended `now`."""
        self._room = min(BURST, self._room + SHARE * (now - self._last)) - worked
        self._last = now
        return max(0.0, -self._room / SHARE)


class RemoteSource:
    """Frames of another machine; see `probes.source.Source` for the commands.

    `refused` is called from another thread, with one line, when the far side would not do what
    it was asked for.
    """

    live = True

    def __init__(self, transport: Transport, interval: float = 1.0) -> None:
        self.title = transport.target
        # An agent is shared: its budget is what whoever started it said.
        self.lifts = not transport.remembers
        self.link = LinkState()
        self.refused: Callable[[str], None] = lambda line: None
        self._transport = transport
        self._interval = interval
        self._connection: Connection | None = None
        self._decoder = Decoder()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._on_frame: Callable[[Frame], None] = lambda frame: None
        self._wishes: dict[tuple[str, ...], dict[str, Any]] = {}
        self._searches: dict[int, Callable[[Sequence[Found]], None]] = {}
        self._asked: dict[int, tuple[str, ...]] = {}
        self._requests = 0
        self._connections = 0
        self._offset: float | None = None
        self._first = self._last = float("-inf")
        self._early: Frame | None = None
        self._said = float("-inf")
        self._frames = self._seen = 0
        self._more = False
        self._pace = Pace(time.monotonic())

    # -- commands: any thread may call these ---------------------------------------------------

    def open(self, seconds: float = LOGIN, tell: Callable[[str], None] = lambda line: None) -> None:
        """Connect and wait for a first Frame, so that what is wrong is said before any screen.

        It may ask for a password on the terminal. `tell` is called from another thread, with one
        line, where it takes long. Raises ProbeError.
        """
        words = f"{self._transport.target}: waiting for a login there, and for its first frame"
        timer = threading.Timer(PATIENCE, tell, [f"{words}; ctrl+C gives up"])
        timer.daemon = True
        timer.start()
        try:
            self._open(seconds)
        finally:
            timer.cancel()

    def _open(self, seconds: float) -> None:
        connection = self._connect(ask=True)
        try:
            end = time.monotonic() + seconds
            while self._early is None:
                left = end - time.monotonic()
                if left <= 0:
                    # Signs of life are no Frame.
                    raise TimeoutError
                self._receive(connection, left)
        except ProbeError:
            self._drop()
            raise
        except (OSError, CodecError) as error:
            known = connection.why() if isinstance(error, OSError) else None
            self._drop()
            fix = "see whether it can be reached"
            if isinstance(error, CodecError):
                fix = "see what the address leads to, and have a login shell there print nothing"
            why = f"{self._transport.target}: {_words(error)}"
            raise known or ProbeError(why, fix) from error

    def start(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        """Begin; the link is kept up from now on, so that there is no end."""
        self._on_frame = on_frame
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Hang up: over there everything is detached, unless others watch."""
        self._stopping.set()
        if self._thread is None:
            self._drop()
            return
        with self._lock:
            connection = self._connection
        if connection is not None:
            connection.hang_up()
        if self._thread is not threading.current_thread():
            # One that is still connecting is left to itself.
            self._thread.join(0.2)

    def toggle(self, probe: str, on: bool) -> None:
        """Attach or detach a probe."""
        self._wish(("toggle", probe), {"op": "toggle", "probe": probe, "on": on})

    def set_option(self, probe: str, option: str, value: Any) -> None:
        """Change a probe's option."""
        target = {"add": "target", "remove": "target", "follow": "follow"}.get(option)
        key = ("option", probe, *((target, str(value)) if target else (option,)))
        command = {"op": "option", "probe": probe, "option": option, "value": value}
        # A far side that has forgotten its targets attaches them to what is there anyway.
        self._wish(key, command, keep=option != "follow")

    def set_filters(self, filters: Filters) -> None:
        """Change what is counted."""
        self._wish(("filters",), {"op": "filters", "filters": filters._asdict()})

    def set_interval(self, seconds: float) -> None:
        """Change the time between Frames."""
        self._wish(("interval",), {"op": "interval", "seconds": seconds})

    def lift_budget(self, seconds: float) -> None:
        """Give up nothing for a while; raises ProbeError where the far side is an agent."""
        if not self.lifts:
            raise ProbeError("an agent keeps to its budget", "start it there with another --budget")
        self._wish(("budget",), {"op": "budget", "seconds": seconds}, keep=False)

    def search(self, query: str, on_found: Callable[[Sequence[Found]], None]) -> None:
        """Ask what can be traced there; only the newest question is sure to be answered."""
        with self._lock:
            self._requests += 1
            self._searches = {self._requests: on_found}
            self._send({"id": self._requests, "op": "search", "query": query})

    def _wish(self, key: tuple[str, ...], command: dict[str, Any], keep: bool = True) -> None:
        """Ask for something now; with `keep` again of a far side that has forgotten it."""
        with self._lock:
            self._requests += 1
            if keep:
                # At the end: what was asked for last is asked for last.
                self._wishes.pop(key, None)
                self._wishes[key] = command
            self._asked[self._requests] = key
            self._send({"id": self._requests, **command})

    def _send(self, command: Mapping[str, Any]) -> None:
        if self._connection is None:
            if self._transport.remembers or command["op"] == "search":
                raise ProbeError("there is no link to it now", "wait until it is back")
            return
        try:
            self._connection.send(command)
        except OSError as error:
            raise ProbeError(f"the link broke ({_words(error)})", "wait until it is back") from None

    # -- the link's thread -----------------------------------------------------------------------

    def _run(self) -> None:
        wait = FIRST_WAIT
        early, self._early = self._early, None
        if early is not None:
            self._on_frame(early)
        while not self._stopping.is_set():
            heard = self.link.heard
            try:
                connection = self._connection or self._connect(ask=False)
                while not self._stopping.is_set():
                    silence = min(SILENCE + 3 * self._interval, LONGEST_SILENCE)
                    self._receive(connection, silence)
            except (ProbeError, OSError, CodecError) as error:
                self._broke(error)
            except Exception as error:  # whatever it is, the link is to come back
                self._broke(error)
            if self.link.heard != heard:
                wait = FIRST_WAIT
            self._stopping.wait(wait * random.uniform(0.8, 1.2))
            wait = min(LONGEST_WAIT, 2 * wait)
        self._drop()

    def _broke(self, error: Exception) -> None:
        connection = self._connection
        known = connection.why() if connection is not None else None
        known = error if isinstance(error, ProbeError) else known
        self._drop()
        if not self._stopping.is_set():
            why = known.why if known is not None else _words(error)
            why = why.removeprefix(f"{self._transport.target}: ")
            self.link = self.link._replace(why=why)
            if self.link.heard is not None:
                self.link = self.link._replace(state="lost")

    def _connect(self, *, ask: bool) -> Connection:
        connection = self._transport.connect(self._answered, ask=ask)
        with self._lock:
            self._decoder = Decoder()
            self._connections += 1
            self._offset = None
            self._connection = connection
            # What was asked before is asked again here, and its answers are no news.
            self._asked.clear()
            self._said = float("-inf")
            self._frames = self._seen = 0
            self._more = False
            if self._connections > 1 and not self._transport.remembers:
                for command in self._wishes.values():
                    self._requests += 1
                    connection.send({"id": self._requests, **command})
        if self._stopping.is_set():
            self._drop()
        return connection

    def _drop(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _receive(self, connection: Connection, seconds: float) -> None:
        """Take what comes next, one record at a time: many changes of a large table fit into a
        few bytes. Raises OSError or ProbeError at the end of the link.
        """
        started = time.thread_time()
        data = b"" if self._more else connection.receive(seconds)
        if not data and not self._more:
            raise connection.why() or ConnectionResetError("the far side has ended")
        now = time.monotonic()
        if now - self._said >= ALIVE and not self._transport.remembers:
            self._said = now
            connection.send({"id": 0, "op": "alive"})
        self.link = self.link._replace(received=self.link.received + len(data))
        item = next(self._decoder.feed(data), None)
        self._more = item is not None
        if isinstance(item, Frame):
            self._frames += 1
            self._take(item, now)
        elif item and "hello" in item:
            _check(item["hello"])
        elif item:
            self._answered(item)
        if not self._more and self._frames != self._seen and not self._transport.remembers:
            # On a slow link it waits for this, instead of filling what lies between.
            self._seen = self._frames
            connection.send({"id": 0, "op": "seen", "frames": self._frames})
        worked = time.thread_time() - started
        self._stopping.wait(self._pace.wait(worked, time.monotonic()))

    def _take(self, frame: Frame, now: float) -> None:
        if sum([_entries(sample) for sample in frame.samples.values()]) > MOST_ENTRIES:
            raise CodecError("a frame larger than any")
        self.title, self._interval = frame.host.name, frame.interval
        shown = self._moved(frame, now)
        self.link = self.link._replace(state="live", heard=now, why=None)
        if self._thread is None:
            self._early = shown if self._early is None else shown.merged_after(self._early)
        else:
            self._on_frame(shown)

    def _moved(self, frame: Frame, now: float) -> Frame:
        """The Frame on this machine's clock, in a generation of this connection."""
        if self._offset is None:
            self._offset = max(now, self._last + 1e-3) - frame.mono
            self._first = frame.mono + self._offset
        mono = frame.mono + self._offset
        if mono <= self._last:
            raise CodecError("time goes backwards there")
        self._last = mono
        base = self._connections * GENERATIONS
        samples = {
            name: replace(
                sample,
                generation=sample.generation + base,
                since=None
                if sample.since is None
                else max(sample.since + self._offset, self._first),
            )
            for name, sample in frame.samples.items()
        }
        return replace(frame, mono=mono, samples=samples)

    def _answered(self, value: Mapping[str, Any]) -> None:
        """An answer to a command."""
        answer = answers.answer_of(value)
        if answer is None:
            return
        with self._lock:
            on_found = self._searches.pop(answer.id, None)
            asked = self._asked.pop(answer.id, None)
            if asked is not None and not answer.ok:
                self._wishes.pop(asked, None)
        why, fix = answers.line(answer.why), answers.line(answer.fix)
        if on_found is not None:
            found = answers.found_of(answer.found)
            on_found(found if answer.ok else [Found("", "", why)])
        elif asked is not None and not answer.ok:
            self.refused(f"{why}: {fix}" if fix else why)


def _entries(sample: Sample) -> int:
    values = [getattr(sample, field.name) for field in fields(sample)]
    return sum([len(value) for value in values if isinstance(value, Mapping | tuple)])


def _check(hello: Any) -> None:
    if answers.protocol_of(hello) != answers.PROTOCOL:
        raise ProbeError("another version of probetop is there", "install the same on both sides")


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nothing was received for long"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
