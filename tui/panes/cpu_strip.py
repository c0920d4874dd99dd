# SPDX-License-Identifier: Apache-2.0
"""All CPUs in a few lines, however many there are: how busy each is, and its IPC.

    cpu0 0.61 ██████▌    42.1%   cpu1 1.92 ████████▎  57.0%     a few: wide bars
     0 ███▌ 0.61   1 ████ 1.92   2 ▌    0.80                    up to a few dozen: short bars,
     0 ▊ 0.61  1 █ 1.92  2 ▏ 0.80                               or very short ones
      0 ▃▁▁▂▇█▁▁  64 ▁▁▁▁▂▂▃▁                                   hundreds: a cell for each
    socket 0  128 cpus  0.81 ██████▌     42.1%                  more than fit: by socket

The length of a bar and the height of a cell are the share of time with a process; the colour
is the IPC's. Without hardware counters there is no IPC and no colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from probes.pmc.view import CpuRow, PmcView, sum_of
from tui.panes.pmc_columns import IPC, fmt_share, fmt_small
from tui.shared.styled_lines import Line, Span, compose
from tui.shared.text import UNKNOWN
from tui.shared.theme import Theme, bar

GAP = 2
LEAST_BAR, SHORT_BAR = 8, 4
LONGEST_BAR = 60
GROUP = 8
"""Cells of the heat strip in one group, so that a CPU's number can be counted."""


def rows_for(height: int) -> int:
    """Lines that the CPUs may use in a pane of `height` lines."""
    return 0 if height < 4 else max(1, min(8, height // 5))


def strip(view: PmcView, width: int, rows: int, theme: Theme) -> list[Line]:
    """Draw all CPUs in at most `rows` lines, with as much detail as fits."""
    cpus = view.cpus
    if rows <= 0 or not cpus:
        return []
    drawn = (_wide, _short, _shortest, _cells, _sockets)
    for draw in drawn if theme.drawings else (_figures, _sockets):
        lines = draw(view, width, rows, theme)
        if lines:
            return lines
    return [_line("all", len(cpus), view.machine, view, width, theme)]


def _style(row: CpuRow, view: PmcView) -> str:
    if not view.sample.hardware or row.ipc is None:
        return "bar"
    style = IPC.style(row.ipc)
    return "bar" if style == "text" else style


def _bar(row: CpuRow, cells: int, view: PmcView, theme: Theme) -> Span:
    return (bar(row.busy or 0.0, cells, theme.glyphs), _style(row, view))


def _ipc(row: CpuRow, view: PmcView) -> list[Span]:
    """The IPC in five cells; empty without hardware counters."""
    if not view.sample.hardware:
        return []
    text = fmt_small(row.ipc)
    return [(f"{text:>4} ", "dim" if text == UNKNOWN else IPC.style(row.ipc))]


def _grid(
    view: PmcView, rows: int, width: int, fixed: int, least: int
) -> tuple[int, int, int] | None:
    """The columns, lines and cells of a bar; an entry needs `fixed` further cells."""
    across = max(1, (width - 1 + GAP) // (fixed + least + GAP))
    down = ceil(len(view.cpus) / across)
    if down > rows or fixed + least >= width:
        return None
    across = ceil(len(view.cpus) / down)
    room = (width - 1 + GAP) // across - GAP - fixed
    return across, down, min(room, LONGEST_BAR)


def _wide(view: PmcView, width: int, rows: int, theme: Theme) -> list[Line]:
    names = [f"cpu{row.cpu}" for row in view.cpus]
    label = max([len(name) for name in names]) + 1
    hardware = 5 if view.sample.hardware else 0
    grid = _grid(view, rows, width, label + hardware + 7, LEAST_BAR)
    if grid is None:
        return []
    _, down, cells = grid
    entries: list[list[Span]] = []
    for name, row in zip(names, view.cpus, strict=True):
        entry: list[Span] = [(f"{name:<{label}}", "dim"), *_ipc(row, view)]
        entry += [_bar(row, cells, view, theme), (f" {fmt_share(row.busy):>6}", "text")]
        entries.append(entry)
    return _rows(entries, down)


def _short(
    view: PmcView, width: int, rows: int, theme: Theme, least: int = SHORT_BAR
) -> list[Line]:
    label = len(str(view.cpus[-1].cpu))
    value = 4 if view.sample.hardware else 5
    grid = _grid(view, rows, width, label + value + 2, least)
    if grid is None:
        return []
    _, down, cells = grid
    entries = []
    for row in view.cpus:
        text = fmt_small(row.ipc) if view.sample.hardware else fmt_share(row.busy)
        style = IPC.style(row.ipc) if view.sample.hardware else "text"
        entry: list[Span] = [(f"{row.cpu:>{label}} ", "dim"), _bar(row, cells, view, theme)]
        entries.append([*entry, (f" {text:>{value}}", style)])
    return _rows(entries, down)


def _shortest(view: PmcView, width: int, rows: int, theme: Theme) -> list[Line]:
    return _short(view, width, rows, theme, least=1)


def _figures(view: PmcView, width: int, rows: int, theme: Theme) -> list[Line]:
    """The entry without a bar, since a number needs fewer bytes."""
    label = max([len(f"cpu{row.cpu}") for row in view.cpus]) + 1
    grid = _grid(view, rows, width, label + (5 if view.sample.hardware else 0) + 6, 0)
    if grid is None:
        return []
    entries: list[list[Span]] = [
        [
            (f"{f'cpu{row.cpu}':<{label}}", "dim"),
            *_ipc(row, view),
            (f"{fmt_share(row.busy):>6}", "text"),
        ]
        for row in view.cpus
    ]
    return _rows(entries, grid[1])


def _rows(entries: Sequence[list[Span]], down: int) -> list[Line]:
    """Arrange entries column by column, as htop arranges its meters."""
    lines = []
    for at in range(down):
        line: list[Span] = [(" ", "")]
        for entry in entries[at::down]:
            line += [*entry, (" " * GAP, "")]
        lines.append(tuple(line[:-1]))
    return lines


def _cells(view: PmcView, width: int, rows: int, theme: Theme) -> list[Line]:
    label = len(str(view.cpus[-1].cpu)) + 2
    groups = (width - label) // (GROUP + 1)
    if groups < 1:
        return []
    across = groups * GROUP
    down = ceil(len(view.cpus) / across)
    if down > rows:
        return []
    # All lines have the same number of whole groups.
    across = ceil(ceil(len(view.cpus) / down) / GROUP) * GROUP
    lines = []
    for start in range(0, len(view.cpus), across):
        part = view.cpus[start : start + across]
        line: list[Span] = [(f"{part[0].cpu:>{label - 1}} ", "dim")]
        for at, row in enumerate(part):
            if at and at % GROUP == 0:
                line.append((" ", ""))
            line.append(_cell(row, view, theme))
        lines.append(tuple(line))
    return lines


def _cell(row: CpuRow, view: PmcView, theme: Theme) -> Span:
    if row.busy is None:
        return ("?", "dim")
    steps = len(theme.glyphs.column)
    level = round(row.busy * steps)
    if row.busy < 0.005:
        return (theme.glyphs.dot, "dim")
    return (theme.glyphs.column[max(1, level) - 1], _style(row, view))


def _sockets(view: PmcView, width: int, rows: int, theme: Theme) -> list[Line]:
    by_socket: dict[int, list[CpuRow]] = {}
    for row in view.cpus:
        if row.socket is None:
            return []
        by_socket.setdefault(row.socket, []).append(row)
    if len(by_socket) > rows:
        return []
    events = view.sample.events
    return [
        _line(f"socket {socket}", len(cpus), sum_of(cpus, events), view, width, theme)
        for socket, cpus in sorted(by_socket.items())
    ]


def _line(name: str, many: int, row: CpuRow, view: PmcView, width: int, theme: Theme) -> Line:
    head = f" {name}  {many} cpus  "
    value = _ipc(row, view)
    cells = min(LONGEST_BAR, max(0, width - len(head) - (5 if value else 0) - 8))
    cells *= theme.drawings
    figure = (f" {fmt_share(row.busy):>6}", "text")
    return compose(((head, "dim"), *value, _bar(row, cells, view, theme), figure), width)
