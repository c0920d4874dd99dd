# SPDX-License-Identifier: Apache-2.0
"""The top line: the machine, the probes' cost, and lost events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from probes.core.frame import Frame
from probes.core.sample import Sample
from tui.shared.notices import has_gone
from tui.shared.styled_lines import Line, Span, line_width
from tui.shared.text import UNKNOWN, clip, fmt_bytes, fmt_count, fmt_ns, safe
from tui.shared.theme import Theme
from tui.widgets.cells import CellWidget

Item = tuple[int, list[Span]]
"""The item's priority (0 is never omitted, the highest is omitted first) and its spans."""


@dataclass(slots=True)
class HeaderState:
    """The header's fields besides the Frame.

    `moment` is the shown moment's text and True if playback is paused. `window` is the window of
    the rates, "" for one interval. `kept` describes the history. `sent_rate` is the output to the
    terminal in bytes per second. `silence` holds texts from long to short that say why no Frames
    come. `lifts` is True if a key can suspend the budget.
    """

    frame: Frame | None = None
    before: Frame | None = None
    title: str = ""
    paused: bool = False
    moment: tuple[str, bool] | None = None
    window: str = ""
    kept: str = ""
    sent_rate: float | None = None
    silence: Sequence[str] = ()
    lifts: bool = False
    marks: list[Span] = field(default_factory=list)


def total_cost(before: Frame | None, after: Frame) -> tuple[float | None, float | None]:
    """The cost of all probes as (per cent of one CPU, ns per event); None for unknown.

    The mean of ns per event weighs each probe by its events in the interval.
    """
    shares: list[float] = []
    weighed = events = 0.0
    for name, sample in after.samples.items():
        cost = sample.cost
        if sample.state != "on":
            continue
        if cost.cpu_percent is not None:
            shares.append(cost.cpu_percent)
        if cost.ns_per_event is not None:
            count = _events(before.samples.get(name) if before else None, sample)
            weighed += cost.ns_per_event * count
            events += count
    return (sum(shares) if shares else None, weighed / events if events else None)


def _events(before: Sample | None, after: Sample) -> int:
    if before is None or before.generation != after.generation:
        return after.cost.events
    return max(0, after.cost.events - before.cost.events)


def _cost(before: Frame | None, frame: Frame) -> list[Span]:
    percent, ns = total_cost(before, frame)
    share = UNKNOWN if percent is None else f"{percent:.2f}" if percent < 10 else f"{percent:.1f}"
    style = "warn" if percent is not None and percent >= 5 else "value"
    return [
        ("probes ", "dim"),
        (f"{share:>4}", style),
        ("%cpu", "dim"),
        (f"{fmt_ns(ns):>6}", "value"),
        ("/event", "dim"),
    ]


KEY = "B: budget off for 60 s"


def reduced(frame: Frame) -> list[str]:
    """The reductions by the budget, in words."""
    out = [f"{name} {safe(s.given_up)}" for name, s in frame.samples.items() if s.given_up]
    if frame.budget is not None and frame.budget.drawing > 1:
        out.append(f"screen 1 frame in {frame.budget.drawing}")
    return out


def _given_up(frame: Frame, lifts: bool) -> list[list[Span]]:
    """The reductions and the key that ends them, from long to short; empty without reductions."""
    if frame.budget is not None and frame.budget.lifted is not None:
        # Always two digits, so that nothing beside the number moves when it falls.
        return [[(f" budget off for {round(frame.budget.lifted):2d} s ", "badge.warn")]]
    given_up = reduced(frame)
    if not given_up:
        return []
    brief = [text.split(":")[0] for text in given_up]
    more = f" +{len(given_up) - 1}" if len(given_up) > 1 else ""
    keys = [f"  {KEY}", "  B lifts it", ""] if lifts else [""]
    texts = [(", ".join(given_up), keys[0])]
    texts += [(", ".join(brief), key) for key in keys[:2]]
    texts += [(brief[0] + more, key) for key in keys]
    return [[(f" {text} ", "badge.warn"), *([(key, "key")] if key else [])] for text, key in texts]


def _budget(frame: Frame) -> list[Item]:
    """The used part of the budget."""
    out: list[Item] = []
    if frame.budget is not None and frame.budget.used is not None:
        used = f"{frame.budget.used:.1f}" if frame.budget.used < 10 else f"{frame.budget.used:.0f}"
        of = f"/{frame.budget.percent:g} %"
        out.append((4, [("budget ", "dim"), (f"{used:>3}", "value"), (of, "dim")]))
    return out


def header_line(state: HeaderState, width: int, theme: Theme) -> Line:
    """The header in `width` cells; the least important items are omitted first."""
    frame = state.frame
    items: list[Item] = [(0, [("probetop", "title")])]
    if state.title:
        items.append((2, [(f" {clip(safe(state.title), 30, theme.glyphs.more)} ", "badge")]))
    if state.paused:
        items.append((0, [(" PAUSED ", "badge.warn")]))
    if state.moment is not None:
        text, still = state.moment
        items.append((0, [(f" {text} ", "badge.warn" if still else "badge")]))
    items += [(0, [mark]) for mark in state.marks]
    if frame is None:
        return _join(_with_silence(items, [], state.silence, width, theme), [], width, theme)
    lost = sum([sample.lost for sample in frame.samples.values()])
    host = frame.host
    load = UNKNOWN if frame.load is None else f"{frame.load:.1f}"
    items += [
        (3, [(safe(host.name), "name")]),
        (6, [(safe(host.release), "text")]),
        (8, [(safe(host.arch), "dim")]),
        (4, [("load ", "dim"), (load, "text")]),
        # Once a Frame is old, its cost is less important than the machine's name.
        (7 if state.silence else 1, _cost(state.before, frame)),
        (0, [(f" lost {fmt_count(lost)} ", "badge.bad")])
        if lost
        else (7 if state.silence else 0, [("lost 0", "dim")]),
    ]
    at = len(items)
    items += _budget(frame)
    if state.sent_rate is not None:
        items.append((9, [("sent ", "dim"), (f"{fmt_bytes(round(state.sent_rate)):>7}/s", "text")]))
    if state.kept:
        items.append((5, [("kept ", "dim"), (state.kept, "text")]))
    given_up = _given_up(frame, state.lifts)
    wanted = frame.filters.describe()
    if wanted:
        room = max(20, width - 60)
        # The reason for missing Frames takes precedence over the figures.
        order = 2 if state.silence else 0
        style = "bad" if has_gone(frame) else "warn"
        items.append((order, [("only ", "warn"), (clip(safe(wanted), room), style)]))
    clock = time.strftime("%H:%M:%S", time.localtime(frame.time))
    right: list[Item] = [(5, [(f"{frame.interval:g} s", "dim")])]
    if state.window:
        right.insert(0, (0, [(state.window, "value")]))
    if state.moment is None or clock not in state.moment[0]:
        right.append((0, [(clock, "text")]))
    if given_up:
        # Next to the cost, as long as the items that are never omitted still fit.
        room = width - _size([item for item in [*items, *right] if item[0] == 0]) - 2
        fitting = [spans for spans in given_up if line_width(spans) <= room]
        items.insert(at, (0, fitting[0] if fitting else given_up[-1]))
    return _join(_with_silence(items, right, state.silence, width, theme), right, width, theme)


def _with_silence(
    left: list[Item], right: Sequence[Item], silence: Sequence[str], width: int, theme: Theme
) -> list[Item]:
    """The left items and the longest text that fits about missing Frames.

    The text comes last because its age grows, and nothing may move with it.
    """
    if not silence:
        return left
    needed = [item for item in [*left, *right] if item[0] == 0]
    room = width - _size(needed) - 3
    texts = [safe(text, theme.plain) for text in silence]
    fitting = [text for text in texts if line_width([(text, "")]) <= room]
    text = fitting[0] if fitting else clip(texts[-1], max(10, room), theme.glyphs.more)
    return [*left, (0, [(text, "warn")])]


def _join(left: Sequence[Item], right: Sequence[Item], width: int, theme: Theme) -> Line:
    # One blank at the left edge; the last item's gap forms the right edge.
    every = [*left, *right]
    kept: list[Item] = [item for item in every if item[0] == 0]
    for item in sorted(every, key=lambda item: item[0]):
        if item[0] and _size([*kept, item]) <= width:
            kept.append(item)
    left, right = [item for item in left if item in kept], [i for i in right if i in kept]
    out: list[Span] = [(" ", "")]
    for _, spans in left:
        out += [*spans, ("  ", "")]
    gap = width - line_width(out) - _size(right) + 1
    out.append((" " * max(0, gap), ""))
    for _, spans in right:
        out += [*spans, ("  ", "")]
    return tuple(out)


def _size(items: Sequence[Item]) -> int:
    return sum([line_width(spans) + 2 for _, spans in items])


class HeaderBar(CellWidget):
    """The header line."""

    def __init__(self, theme: Theme) -> None:
        super().__init__(theme, widget_id="header")
        self.state = HeaderState()

    def draw(self, columns: int, rows: int) -> list[Line]:
        """Draw the line."""
        return [header_line(self.state, columns, self.theme)]
