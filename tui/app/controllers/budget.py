# SPDX-License-Identifier: Apache-2.0
"""What the dashboard does to stay within the budget, and the key that lifts it for a while."""

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
"""Of how many Frames one is drawn at most where there are graphs still."""


class BudgetControl:
    """Draws less where the budget says so, or lifts it.

    `clock` gives monotonic seconds. `adapt` is called when graphs are to be drawn or left out
    from now on.
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
        """That of the newest Frame."""
        frame = self._view.travel.newest
        return frame.budget if frame is not None and not self._view.replays else None

    @property
    def drawing(self) -> int:
        """Of how many Frames one is drawn."""
        budget = self.budget
        return 1 if budget is None or budget.lifted is not None else budget.drawing

    def may_draw(self) -> bool:
        """Whether a Frame may be drawn now; if not, one of the next is."""
        many, frame = self.drawing, self._view.frame
        # Frames come a little early or late: half an interval tells which one it is.
        rest = (many - 0.5) * frame.interval if many > 1 and frame is not None else 0.0
        return self._clock() - self._drawn >= rest

    def draw_next(self) -> None:
        """Have the next Frame drawn: whoever presses a key sees what it does."""
        self._drawn = float("-inf")

    def drew(self) -> None:
        """Note that a Frame is drawn, and leave out the graphs where few are."""
        self._drawn = self._clock()
        graphs = self.drawing <= MOST_WITH_GRAPHS
        if graphs != self.graphs:
            self.graphs = graphs
            self.adapt()

    def lift(self) -> None:
        """Give up nothing for a while; while that lasts, have the budget hold again."""
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

    def tell(self, header: HeaderState) -> None:
        """Have the header say whether there is something to lift."""
        now = not (self._view.in_past or self._view.replays)
        header.lifts = now and self._view.source.lifts

    def hints(self) -> Hints:
        """The key, where something is reduced or the budget is lifted."""
        view = self._view
        shown = view.frame
        if shown is None or view.in_past or view.replays or not view.source.lifts:
            return [], []
        if shown.budget is not None and shown.budget.lifted is not None:
            return [hint("lift_budget", "budget on")], []
        return ([hint("lift_budget")] if reduced(shown) else []), []
