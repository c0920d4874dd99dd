# SPDX-License-Identifier: Apache-2.0
"""Header and footer texts about time: the shown moment and the time keys."""

from __future__ import annotations

import time

from tui.app.status import Hints
from tui.app.view import View
from tui.shared.keys import hint
from tui.shared.text import fmt_clock


def moment(view: View, playing: bool, speed: float) -> tuple[str, bool] | None:
    """The shown moment's text, and True if playback is paused; None for the newest Frame."""
    player, timeline = view.player, view.player.timeline
    if player.number is None or player.frame is None or not len(timeline):
        return None
    pace = "" if speed == 1 else f" x{speed:g}"
    at = player.frame.mono
    if not view.replays:
        clock = time.strftime("%H:%M:%S", time.localtime(player.frame.time))
        age = fmt_clock(timeline.mono(timeline.end - 1) - at)
        return f"PAST {clock} -{age}{f' playing{pace}' if playing else pace}", not playing
    start, end = timeline.mono(player.oldest), timeline.mono(timeline.end - 1)
    state = "PLAY" if playing else "END" if at >= end else "PAUSED"
    return f"{state}{pace} {fmt_clock(at - start)}/{fmt_clock(end - start)}", not playing


def hints(view: View, playing: bool, plain: bool) -> Hints:
    """The time keys: those at the start of the footer and those behind the panes' keys."""
    play = hint("pause", "pause" if playing else "play")
    window, leap = hint("window"), hint("leap")
    if view.replays:
        step = hint("step", "step", plain)
        return [play, step], [leap, hint("oldest"), hint("speed"), window]
    if view.in_past:
        return [hint("end"), hint("step", plain=plain)], [leap, play, window]
    return [], [hint("pause"), window, hint("step", "past", plain), hint("record")]
