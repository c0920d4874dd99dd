# SPDX-License-Identifier: Apache-2.0
"""What the keys of time do: the past of the live screen, playing a recording, windows.

A Timeline is behind all of it: the history in memory, or the recording that is replayed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import ClassVar

from textual import events
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.timer import Timer

from probes.base import ProbeError
from probes.windows import SINCE_START
from tui.app.controllers.commands import Actions
from tui.sessions.timeline_player import Travel
from tui.shared import notices
from tui.shared.styled_lines import Span
from tui.shared.text import fmt_clock, fmt_seconds
from tui.widgets.footer import Hint

WINDOWS = (None, 10.0, 60.0, SINCE_START)
SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
LEAP = 10.0
"""Seconds of a long step."""
SHORTEST_STEP = 0.05
"""Seconds between two Frames on the screen while it plays: faster ones share one."""
BLOCKED_STEP = 0.25
"""Seconds until a terminal that takes nothing is asked again."""
LONGEST_GAP = 5.0
"""Seconds that a hole in a recording is waited for at most, at its own pace."""
THE_PAST = "this is the past, which nothing changes"
WAYS = {"left", "right", "shift+left", "shift+right", "comma", "full_stop"}
"""Keys of steps and leaps, which count together until they are answered."""
ENDS = {"left_square_bracket", "right_square_bracket", "end"}
"""Keys that go to a moment of their own, wherever steps and leaps would have led."""


class TimeActions(Actions):
    """The half of the program that acts on the keys of time.

    `replays` tells whether all there is are a recording's Frames, which never come by
    themselves; `paused` that newest Frames are not shown.
    """

    travel: Travel
    replays = False
    paused = False

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "Back in time", show=False),
        Binding("right", "step(1)", "Onwards in time", show=False),
        Binding("shift+left,comma", "leap(-1)", "10 s back", show=False),
        Binding("shift+right,full_stop", "leap(1)", "10 s onwards", show=False),
        Binding("left_square_bracket", "oldest", "Oldest", show=False),
        Binding("right_square_bracket", "newest", "Newest", show=False),
        Binding("less_than_sign", "speed(-1)", "Slower", show=False),
        Binding("greater_than_sign", "speed(1)", "Faster", show=False),
        Binding("space", "pause", "Pause"),
        Binding("end", "end", show=False),
        Binding("w", "window", "Window"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.playing = False
        self.speed = 1.0
        self._steps = 0
        self._leaps = 0
        self._shown_at = 0.0
        self._play_timer: Timer | None = None
        self._plays = 0

    # -- where in time -----------------------------------------------------------------------

    @property
    def in_past(self) -> bool:
        """Whether the screen shows a moment that the keys of time chose."""
        return self.travel.number is not None

    def check_now(self) -> None:
        """Raises ProbeError while the live screen shows the past."""
        if self.in_past and not self.replays:
            raise ProbeError(THE_PAST, "press end for now")

    def on_key(self, event: events.Key) -> None:
        """Answer steps and leaps before any key that acts on the moment to which they lead."""
        if event.key not in WAYS and event.key not in ENDS:
            self._move()

    def action_step(self, way: int) -> None:
        """One Frame back or on. Keys that come while one is answered count together."""
        self._steps += way
        self.call_later(self._move)

    def action_leap(self, way: int) -> None:
        """As many Frames as ten seconds hold."""
        self._leaps += way
        self.call_later(self._move)

    def _drop_moves(self) -> None:
        """Forget the steps and leaps that were not answered yet."""
        self._steps = self._leaps = 0

    def _move(self) -> None:
        number = self._wanted()
        self._drop_moves()
        if number is None:
            return
        self.stop_playing()
        if self._is_now(number):
            self.action_newest()
        elif number != self.travel.now() or not self.in_past:
            self._go(number)
            self._say_edge(number)

    def _wanted(self) -> int | None:
        """Where the steps and leaps lead that were not answered yet; None if there are none."""
        steps, leaps, timeline = self._steps, self._leaps, self.travel.timeline
        if not (steps or leaps) or not len(timeline):
            return None
        try:
            number = self.travel.now() + steps
            if leaps:
                mono = timeline.mono(max(timeline.first, min(number, timeline.end - 1)))
                number = timeline.number_at(mono + leaps * LEAP)
        except LookupError:
            # Forgotten at this very moment.
            number = self.travel.oldest
        return number

    def _is_now(self, number: int) -> bool:
        """Whether a step to this Frame leads out of the past."""
        return number >= self.travel.timeline.end - 1 and not self.replays

    def _say_edge(self, number: int) -> None:
        timeline = self.travel.timeline
        if number < self.travel.oldest:
            self.say("the recording begins here" if self.replays else "nothing older is kept")
        elif number >= timeline.end:
            self._say_end()

    def action_oldest(self) -> None:
        """The first moment of the recording, or the oldest that is kept."""
        self._drop_moves()
        self.stop_playing()
        self._go(self.travel.oldest)

    def action_newest(self) -> None:
        """Now; of a recording its end."""
        self._drop_moves()
        self.stop_playing()
        self._go(self.travel.timeline.end - 1)
        if self.replays:
            self._say_end()
        else:
            self.travel.number = None
            self.paused = False
            self.refresh_time()

    def action_end(self) -> None:
        """Back to now from the past, else the last row."""
        number = self._wanted()
        past = self.in_past if number is None else not self._is_now(number)
        if past and not self.replays:
            # Nobody sees where pending steps lead, so they need not be drawn.
            self.action_newest()
        else:
            self._move()
            self.action_move("end")

    def _go(self, number: int) -> None:
        if not len(self.travel.timeline):
            return
        try:
            self.travel.go(number)
        except LookupError as error:
            self.say(str(error))
            return
        self.paused = False
        self.show_moment()

    def show_moment(self) -> None:
        """Repaint after the panes were given another moment."""
        self.frame = self.travel.frame
        self.forget_wishes()
        with self.batch_update():
            self.tell_time()
            self.dashboard.settle()

    # -- playing -----------------------------------------------------------------------------

    def action_pause(self) -> None:
        """Play or hold the past; freeze the newest, or show what came meanwhile."""
        if self.in_past:
            if self.playing:
                self.stop_playing()
                self.refresh_time()
            else:
                self.play()
            return
        self.paused = not self.paused
        self.refresh_time()
        self.catch_up()

    def marks(self) -> list[Span]:
        """What the header has to point out."""
        return []

    def kept(self) -> str:
        """How much of the past there is, in time and in bytes; "" where that is no question."""
        return ""

    def play(self) -> None:
        """Go on from the Frame that is shown; from the end of a recording, begin anew."""
        timeline = self.travel.timeline
        if self.replays and self.travel.now() >= timeline.end - 1:
            self._go(self.travel.oldest)
        self.playing = True
        self._shown_at = time.monotonic()
        self._schedule()
        self.refresh_time()

    def stop_playing(self) -> None:
        """Hold the Frame that is shown."""
        self.playing = False
        self._plays += 1
        if self._play_timer is not None:
            self._play_timer.stop()
            self._play_timer = None

    def _gap(self, number: int) -> float:
        """Seconds from a Frame to the next, in the recording's time."""
        timeline = self.travel.timeline
        return min(timeline.mono(number + 1) - timeline.mono(number), LONGEST_GAP)

    def _schedule(self) -> None:
        number = self.travel.now()
        if number >= self.travel.timeline.end - 1:
            self._played_all()
            return
        try:
            due = self._shown_at + self._gap(number) / self.speed
        except LookupError:
            due = 0.0
        delay = max(SHORTEST_STEP, self.pace(), due - time.monotonic())
        self._play_timer = self.set_timer(delay, partial(self._rung, self._plays))

    def _rung(self, plays: int) -> None:
        # A timer that was stopped may have rung already: two would go on side by side.
        if plays == self._plays:
            self._play_on()

    def _play_on(self) -> None:
        if not self.playing:
            return
        if not self.may_paint():
            self._play_timer = self.set_timer(BLOCKED_STEP, partial(self._rung, self._plays))
            return
        timeline, number, now = self.travel.timeline, self.travel.now(), time.monotonic()
        try:
            ahead = timeline.mono(number) + (now - self._shown_at) * self.speed
            target = max(number + 1, timeline.number_at(ahead))
            gap = timeline.mono(target) - timeline.mono(number) if target > number + 1 else None
            passed = (self._gap(number) if gap is None else gap) / self.speed
        except LookupError:
            target, passed = number + 1, 0.0
        # A screen that cannot follow does not hurry afterwards.
        self._shown_at = max(self._shown_at + passed, now - 0.2)
        self._go(target)
        self._schedule()

    def _played_all(self) -> None:
        if not self.replays:
            self.action_newest()
            return
        self.stop_playing()
        self.refresh_time()
        self._say_end()

    def _say_end(self) -> None:
        timeline = self.travel.timeline
        damage = f"; {timeline.damage}" if timeline.damage else ""
        self.say(f"the recording ends after {len(timeline)} frames{damage}", "warn")

    def action_speed(self, way: int) -> None:
        """The next slower or faster speed."""
        at = max(0, min(SPEEDS.index(self.speed) + way, len(SPEEDS) - 1))
        if not self.in_past:
            self.say("now goes by at its own speed: left and right go into the past")
            return
        if SPEEDS[at] == self.speed:
            self.say(f"the speed stays at {self.speed:g}x: there is no step beyond", "warn")
        self.speed = SPEEDS[at]
        if self.playing:
            self.stop_playing()
            self.play()
        self.refresh_time()

    def action_interval(self, way: int) -> None:
        """The next longer or shorter interval, which a recording has already."""
        if self.replays:
            self.say("the interval was recorded: < and > change the speed")
        else:
            super().action_interval(way)

    # -- windows -----------------------------------------------------------------------------

    def action_window(self) -> None:
        """The next longer window of rates and percentiles, then one interval again."""
        at = WINDOWS.index(self.travel.window)
        seconds = WINDOWS[(at + 1) % len(WINDOWS)]
        self.travel.show_window(seconds)
        self.refresh_time()
        self.dashboard.repaint()
        words = "one interval" if seconds is None else f"the last {seconds:g} s"
        words = "all since the start" if seconds == SINCE_START else words
        self.say(f"rates and percentiles of {words}; graphs stay by interval", "dim")

    # -- what the header and the footer say --------------------------------------------------

    def refresh_time(self) -> None:
        """Say in the header and the footer which moment this is."""
        self.tell_time()
        self.dashboard.header.repaint()
        self.dashboard.repaint_footer()

    def tell_time(self) -> None:
        """Have the header and the footer say it when they are painted next."""
        header, travel = self.dashboard.header.state, self.travel
        header.frame, header.before = travel.frame, travel.before
        header.paused = self.paused
        header.window = self._window()
        header.moment = self._moment()
        header.kept = self.kept() if self.in_past else ""
        header.marks = self.marks()
        acts = not (self.in_past or self.replays)
        self.dashboard.footer.notice = notices.of(travel.frame, self.dashboard.look, acts)
        self.dashboard.time_hints = self._hints()

    def _moment(self) -> tuple[str, bool] | None:
        """Which moment is shown and whether it stands still; None for now."""
        travel, timeline = self.travel, self.travel.timeline
        if travel.number is None or travel.frame is None or not len(timeline):
            return None
        speed = "" if self.speed == 1 else f" x{self.speed:g}"
        at = travel.frame.mono
        if not self.replays:
            clock = time.strftime("%H:%M:%S", time.localtime(travel.frame.time))
            age = fmt_clock(timeline.mono(timeline.end - 1) - at)
            playing = f" playing{speed}" if self.playing else speed
            return f"PAST {clock} -{age}{playing}", not self.playing
        start, end = timeline.mono(travel.oldest), timeline.mono(timeline.end - 1)
        state = "PLAY" if self.playing else "END" if at >= end else "PAUSED"
        return f"{state}{speed} {fmt_clock(at - start)}/{fmt_clock(end - start)}", not self.playing

    def _window(self) -> str:
        """What the header says of the window; "" for one interval."""
        window, reach = self.travel.window, self.travel.reach
        if window is None or reach is None:
            return ""
        if window == SINCE_START:
            return f"all {fmt_clock(reach)}"
        short = abs(reach - window) > 1.5 * (self.frame.interval if self.frame else 1.0)
        return f"{fmt_seconds(reach)} of {window:g} s" if short else f"over {window:g} s"

    def _hints(self) -> tuple[list[Hint], list[Hint]]:
        """Keys of time, before all others and behind those of panes."""
        arrows, window = "<- ->" if self.dashboard.look.plain else "←→", ("w", "window")
        play = ("space", "pause" if self.playing else "play")
        if self.replays:
            return [play, (arrows, "step")], [
                (",.", "10 s"),
                ("[]", "ends"),
                ("<>", "speed"),
                window,
            ]
        if self.in_past:
            return [("end", "now"), (arrows, "time")], [(",.", "10 s"), play, window]
        return [], [("space", "pause"), window, (arrows, "past"), ("r", "record")]

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette's lines of these keys, behind those of the panes."""
        yield from super().get_system_commands(screen)
        yield SystemCommand("Window: 1 interval, 10 s, 60 s, all", "key w", self.action_window)
        yield SystemCommand("Back in time", "key left", partial(self.action_step, -1))
        yield SystemCommand("Onwards in time", "key right", partial(self.action_step, 1))
        yield SystemCommand("The oldest moment", "key [", self.action_oldest)
        yield SystemCommand("Now, or the recording's end", "key ]", self.action_newest)
