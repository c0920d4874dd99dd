# SPDX-License-Identifier: Apache-2.0
"""Time keys: step through the past of a live source, and play a recording.

Both read a Timeline: the history in memory, or the recording.
"""

from __future__ import annotations

import time
from functools import partial

from textual.timer import Timer

from tui.app.announcer import Announcer
from tui.app.controllers.drawing import Drawing
from tui.app.controllers.pane_commands import PaneCommands
from tui.app.controllers.slow_link import SlowLink
from tui.app.controllers.time_words import hints, moment
from tui.app.screen import DashboardScreen
from tui.app.status import Hints, Status
from tui.app.view import Program, View
from tui.widgets.header import HeaderState

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
LEAP = 10.0
"""Seconds that a long step covers."""
SHORTEST_STEP = 0.05
"""Least seconds between two painted Frames during playback; Frames in between are skipped."""
BLOCKED_STEP = 0.25
"""Seconds between two attempts to paint while the terminal is blocked."""
LONGEST_GAP = 5.0
"""Longest wait in seconds, in the recording's time, for a gap in the recording."""
WAYS = {"left", "right", "shift+left", "shift+right", "comma", "full_stop"}
"""Keys of steps and leaps; presses are added up until the next repaint."""
ENDS = {"left_square_bracket", "right_square_bracket", "end"}
"""Keys that jump to a fixed moment and so discard pending steps and leaps."""


class Playback:
    """Carries out the time keys. `playing` is True during playback; `speed` is its factor."""

    def __init__(
        self,
        view: View,
        board: DashboardScreen,
        status: Status,
        announcer: Announcer,
        drawing: Drawing,
        slow_link: SlowLink,
        panes: PaneCommands,
        program: Program,
    ) -> None:
        self._view = view
        self._board = board
        self._status = status
        self._say = announcer.say
        self._drawing = drawing
        self._slow_link = slow_link
        self._panes = panes
        self._program = program
        self.playing = False
        self.speed = 1.0
        self._begun = False
        self._steps = 0
        self._leaps = 0
        self._shown_at = 0.0
        self._play_timer: Timer | None = None
        self._plays = 0

    # -- position in time -----------------------------------------------------------------------

    def before_key(self, key: str) -> None:
        """Carry out pending steps before any other key that depends on the shown moment."""
        if key not in WAYS and key not in ENDS:
            self._move()

    def step(self, way: int) -> None:
        """Step one Frame back or forward; presses add up until the next repaint."""
        self._steps += way
        self._program.call_later(self._move)

    def leap(self, way: int) -> None:
        """Step by as many Frames as `LEAP` seconds hold."""
        self._leaps += way
        self._program.call_later(self._move)

    def drop_moves(self) -> None:
        """Discard the pending steps and leaps."""
        self._steps = self._leaps = 0

    def _move(self) -> None:
        number = self._wanted()
        self.drop_moves()
        if number is None:
            return
        self.stop()
        if self._is_now(number):
            self.newest()
        elif number != self._view.player.now() or not self._view.in_past:
            self._go(number)
            self._say_edge(number)

    def _wanted(self) -> int | None:
        """The Frame number to which the pending steps lead; None if no step is pending."""
        player = self._view.player
        steps, leaps, timeline = self._steps, self._leaps, player.timeline
        if not (steps or leaps) or not len(timeline):
            return None
        try:
            number = player.now() + steps
            if leaps:
                mono = timeline.mono(max(timeline.first, min(number, timeline.end - 1)))
                number = timeline.number_at(mono + leaps * LEAP)
        except LookupError:
            # The history has evicted this Frame since the last check.
            number = player.oldest
        return number

    def _is_now(self, number: int) -> bool:
        """True if a step to this Frame returns to the newest Frames."""
        return number >= self._view.player.timeline.end - 1 and not self._view.replays

    def _say_edge(self, number: int) -> None:
        player = self._view.player
        if number < player.oldest:
            replays = self._view.replays
            self._say("the recording begins here" if replays else "nothing older is kept")
        elif number >= player.timeline.end:
            self._say_end()

    def oldest(self) -> None:
        """Go to the first Frame of the recording, or the oldest in the history."""
        self.drop_moves()
        self.stop()
        self._go(self._view.player.oldest)

    def newest(self) -> None:
        """Go to the newest Frame; for a recording, to its end."""
        view = self._view
        self.drop_moves()
        self.stop()
        self._go(view.player.timeline.end - 1)
        if view.replays:
            self._say_end()
        else:
            view.player.number = None
            view.paused = False
            self._status.refresh()

    def end(self) -> None:
        """Return from the past to the newest Frame; otherwise move the cursor to the last row."""
        view, number = self._view, self._wanted()
        past = view.in_past if number is None else not self._is_now(number)
        if past and not view.replays:
            # The jump replaces pending steps before they are painted, so they need not be drawn.
            self.newest()
        else:
            self._move()
            self._panes.move("end")

    def _go(self, number: int) -> None:
        player = self._view.player
        if not len(player.timeline):
            return
        try:
            player.go(number)
        except LookupError as error:
            self._say(str(error))
            return
        self._view.paused = False
        self._drawing.show_moment()

    # -- playing -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Start to play the recording from its first Frame; later calls do nothing."""
        if self._begun or not self._view.replays:
            return
        self._begun = True
        self.oldest()
        self.play()
        damage = self._view.player.timeline.damage
        if damage:
            self._say(damage, "warn")

    def pause(self) -> None:
        """Start or pause playback; for a live source, freeze or unfreeze the screen."""
        if self._view.in_past:
            if self.playing:
                self.stop()
                self._status.refresh()
            else:
                self.play()
            return
        self._view.paused = not self._view.paused
        self._status.refresh()
        self._drawing.catch_up()

    def play(self) -> None:
        """Play from the shown Frame; at the end of a recording, play from its start."""
        player = self._view.player
        if self._view.replays and player.now() >= player.timeline.end - 1:
            self._go(player.oldest)
        self.playing = True
        self._shown_at = time.monotonic()
        self._schedule()
        self._status.refresh()

    def stop(self) -> None:
        """Pause at the shown Frame."""
        self.playing = False
        self._plays += 1
        if self._play_timer is not None:
            self._play_timer.stop()
            self._play_timer = None

    def _gap(self, number: int) -> float:
        """Seconds from a Frame to the next, in the recording's time."""
        timeline = self._view.player.timeline
        return min(timeline.mono(number + 1) - timeline.mono(number), LONGEST_GAP)

    def _schedule(self) -> None:
        player = self._view.player
        number = player.now()
        if number >= player.timeline.end - 1:
            self._played_all()
            return
        try:
            due = self._shown_at + self._gap(number) / self.speed
        except LookupError:
            due = 0.0
        delay = max(SHORTEST_STEP, self._slow_link.pace(), due - time.monotonic())
        self._ring_in(delay)

    def _ring_in(self, delay: float) -> None:
        self._play_timer = self._program.set_timer(delay, partial(self._rung, self._plays))

    def _rung(self, plays: int) -> None:
        # A stopped timer may have fired already, and a second timer chain would double the speed.
        if plays == self._plays:
            self._play_on()

    def _play_on(self) -> None:
        if not self.playing:
            return
        if not self._slow_link.may_paint():
            self._ring_in(BLOCKED_STEP)
            return
        player, now = self._view.player, time.monotonic()
        timeline, number = player.timeline, player.now()
        try:
            ahead = timeline.mono(number) + (now - self._shown_at) * self.speed
            target = max(number + 1, timeline.number_at(ahead))
            gap = timeline.mono(target) - timeline.mono(number) if target > number + 1 else None
            passed = (self._gap(number) if gap is None else gap) / self.speed
        except LookupError:
            target, passed = number + 1, 0.0
        # A screen that falls behind skips time and does not catch up.
        self._shown_at = max(self._shown_at + passed, now - 0.2)
        self._go(target)
        self._schedule()

    def _played_all(self) -> None:
        if not self._view.replays:
            self.newest()
            return
        self.stop()
        self._status.refresh()
        self._say_end()

    def _say_end(self) -> None:
        timeline = self._view.player.timeline
        damage = f"; {timeline.damage}" if timeline.damage else ""
        self._say(f"the recording ends after {len(timeline)} frames{damage}", "warn")

    def change_speed(self, way: int) -> None:
        """Use the next slower or faster speed."""
        at = max(0, min(SPEEDS.index(self.speed) + way, len(SPEEDS) - 1))
        if not self._view.in_past:
            self._say("live data has no speed: left and right go into the past")
            return
        if SPEEDS[at] == self.speed:
            self._say(f"the speed stays at {self.speed:g}x: it is the last step", "warn")
        self.speed = SPEEDS[at]
        if self.playing:
            self.stop()
            self.play()
        self._status.refresh()

    # -- what the header and the footer say --------------------------------------------------

    def update_header(self, header: HeaderState) -> None:
        """Set the header's moment."""
        header.moment = moment(self._view, self.playing, self.speed)

    def hints(self) -> Hints:
        """The time keys for the footer."""
        return hints(self._view, self.playing, self._board.theme.plain)
