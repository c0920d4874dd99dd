# SPDX-License-Identifier: Apache-2.0
"""Draws less while probetop is over its budget, and suspends the budget on a key."""

from __future__ import annotations

from collections.abc import Callable

from probes.core.errors import ProbeError
from probes.core.sample import Budget
from probes.live.budget_controller import LIFTED
from tui.app.announcer import Announcer
from tui.app.status import Hints
from tui.app.view import View
from tui.shared.keys import hint
from tui.widgets.header import HeaderState, reduced

MOST_WITH_GRAPHS = 2
"""The dashboard draws graphs while it draws at least one Frame in this many."""


class BudgetControl:
    """Skips Frames and graphs as the budget demands, or suspends the budget.

    `clock` returns monotonic seconds. `adapt` is called when graphs are switched on or off.
    """

    def __init__(self, view: View, announcer: Announcer, clock: Callable[[], float]) -> None:
        self._view = view
        self._announcer = announcer
        self._clock = clock
        self._drawn = float("-inf")
        self.graphs = True
        self.adapt: Callable[[], None] = lambda: None

    @property
    def budget(self) -> Budget | None:
        """The newest Frame's budget; None for a recording and before the first Frame."""
        frame = self._view.player.newest
        return frame.budget if frame is not None and not self._view.replays else None

    @property
    def drawing(self) -> int:
        """One Frame in this many is drawn."""
        budget = self.budget
        return 1 if budget is None or budget.lifted is not None else budget.drawing

    def may_draw(self) -> bool:
        """True if a Frame may be drawn now; otherwise a later Frame is drawn."""
        many, frame = self.drawing, self._view.frame
        # Frames arrive slightly early or late, so half an interval decides which Frame is drawn.
        rest = (many - 0.5) * frame.interval if many > 1 and frame is not None else 0.0
        return self._clock() - self._drawn >= rest

    def draw_next(self) -> None:
        """Draw the next Frame in any case, so that a pressed key shows its effect."""
        self._drawn = float("-inf")

    def drew(self) -> None:
        """Note that a Frame was drawn, and switch graphs on or off."""
        self._drawn = self._clock()
        graphs = self.drawing <= MOST_WITH_GRAPHS
        if graphs != self.graphs:
            self.graphs = graphs
            self.adapt()

    def lift(self) -> None:
        """Suspend the budget for `LIFTED` seconds; while it is suspended, enforce it again."""
        view, budget = self._view, self.budget
        off = budget is not None and budget.lifted is not None and not view.in_past
        if not view.replays and budget is None and view.frame is not None:
            self._announcer.say("there is no budget: nothing is reduced", "warn")
            return
        try:
            view.source.lift_budget(0.0 if off else LIFTED)
        except ProbeError as error:
            self._announcer.say(str(error))
            return
        text = "the budget holds again" if off else f"budget off for {LIFTED:g} s"
        self._announcer.say(text, "dim")

    def update_header(self, header: HeaderState) -> None:
        """Set the header's note that the budget can be suspended."""
        now = not (self._view.in_past or self._view.replays)
        header.lifts = now and self._view.source.lifts

    def hints(self) -> Hints:
        """The key that suspends the budget while it reduces something, or enforces it again."""
        view = self._view
        shown = view.frame
        if shown is None or view.in_past or view.replays or not view.source.lifts:
            return [], []
        if shown.budget is not None and shown.budget.lifted is not None:
            return [hint("lift_budget", "budget on")], []
        return ([hint("lift_budget")] if reduced(shown) else []), []
