# SPDX-License-Identifier: Apache-2.0
"""What the dashboard does to stay within the budget, and the key that lifts it for a while."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import events
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from probes.base import ProbeError
from probes.governed import LIFTED
from probes.samples import Budget
from tui.app.controllers.slow_link import LinkActions
from tui.sessions.guarded_source import Guard
from tui.widgets.footer import Hint
from tui.widgets.header import reduced

LIFT = f"Budget: off for {LIFTED:g} s, or on again"
MOST_WITH_GRAPHS = 2
"""Of how many Frames one is drawn at most where there are graphs still."""


class BudgetActions(LinkActions):
    """The part of the program that draws less, or lifts the budget."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("B", "lift_budget", "Budget off", show=False)]

    def __init__(self) -> None:
        super().__init__()
        self._drawn = float("-inf")
        self._graphs = True

    @property
    def budget(self) -> Budget | None:
        """That of the newest Frame."""
        frame = self.travel.newest
        return frame.budget if frame is not None and not self.replays else None

    @property
    def drawing(self) -> int:
        """Of how many Frames one is drawn."""
        budget = self.budget
        return 1 if budget is None or budget.lifted is not None else budget.drawing

    def may_draw(self) -> bool:
        """Whether a Frame may be drawn now; if not, one of the next is."""
        many, frame = self.drawing, self.frame
        # Frames come a little early or late: half an interval tells which one it is.
        rest = (many - 0.5) * frame.interval if many > 1 and frame is not None else 0.0
        if self.link.clock() - self._drawn < rest:
            return False
        return super().may_draw()

    def on_key(self, event: events.Key) -> None:
        """Whoever presses a key sees what it does with the next Frame."""
        self._drawn = float("-inf")

    def drew(self) -> None:
        """Note that a Frame is drawn, and leave out the graphs where few are."""
        super().drew()
        self._drawn = self.link.clock()
        graphs = self.drawing <= MOST_WITH_GRAPHS
        if graphs != self._graphs:
            self._graphs = graphs
            self._adapt()

    def draws_graphs(self) -> bool:
        """Whether there are graphs."""
        return self._graphs and super().draws_graphs()

    def action_lift_budget(self) -> None:
        """Give up nothing for a while; while that lasts, have the budget hold again."""
        budget = self.budget
        off = budget is not None and budget.lifted is not None and not self.in_past
        if not self.replays and budget is None and self.frame is not None:
            self.say("there is no budget: nothing is reduced", "warn")
            return
        try:
            self.source.lift_budget(0.0 if off else LIFTED)
        except ProbeError as error:
            self.say(str(error))
            return
        self.say("the budget holds again" if off else f"budget off for {LIFTED:g} s", "dim")

    def spent_once(self, seconds: float) -> None:
        """So many seconds of a CPU went into something that is done once."""
        if isinstance(self.source, Guard):
            self.source.one_off(seconds)

    def tell_time(self) -> None:
        """Have the header say whether there is something to lift."""
        super().tell_time()
        now = not (self.in_past or self.replays)
        self.dashboard.header.state.lifts = now and self.source.lifts

    def _hints(self) -> tuple[list[Hint], list[Hint]]:
        first, last = super()._hints()
        shown = self.frame
        if shown is None or self.in_past or self.replays or not self.source.lifts:
            return first, last
        lifted = shown.budget is not None and shown.budget.lifted is not None
        hint = [("B", "budget on")] if lifted else [("B", "budget off")] if reduced(shown) else []
        return [*first, *hint], last

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the palette lists."""
        yield from super().get_system_commands(screen)
        yield SystemCommand(LIFT, "key B", self.action_lift_budget)
