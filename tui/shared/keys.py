# SPDX-License-Identifier: Apache-2.0
"""All keys of the dashboard in one table.

The screen's bindings, the footer, the help, the palette and README's table are made from it. Keys
of a single pane are in that pane's `options`.
"""

from __future__ import annotations

from typing import NamedTuple

from tui.registry import REGISTRY

Hint = tuple[str, str]
"""A key as the footer writes it, and a word for its action."""


class Key(NamedTuple):
    """One command and its keys.

    `names` are Textual's names of the keys, separated by commas. `caps` are the keys' labels, with
    blanks between. `title` is the palette's line, empty if the palette does not list the command.
    `everywhere` is True if the key also acts while another screen, such as the palette, is open.
    """

    names: str
    caps: str
    command: str
    arguments: tuple[str | int | bool, ...] = ()
    title: str = ""
    everywhere: bool = False

    @property
    def action(self) -> str:
        """The command as a Textual action of the dashboard's screen."""
        words = ", ".join([repr(word) for word in (self.command, *self.arguments)])
        return f"command({words})"


class KeyRow(NamedTuple):
    """Keys that are explained together.

    `caps` and `help` form a line of the help; an empty `help` omits it. `hint` is the footer's word
    while the keys do something; `readme` is README's text. `several` is True if the keys need
    several attached hosts.
    """

    keys: tuple[Key, ...]
    caps: str
    help: str
    readme: str
    hint: Hint = ("", "")
    several: bool = False


def _one(
    key: str,
    command: str,
    word: str = "",
    *,
    cap: str = "",
    text: str,
    readme: str,
    title: str = "",
) -> KeyRow:
    """A row with one key; `word` is the footer's text, `text` the help's."""
    cap = cap or key
    return KeyRow((Key(key, cap, command, title=title),), cap, text, readme, (cap, word))


_PROBES = tuple([entry.key for entry in REGISTRY])
FIND = "Find a function, tracepoint or other target to time"
ROWS: tuple[KeyRow, ...] = (
    KeyRow(
        tuple([Key(entry.key, entry.key, "toggle_probe", (entry.name,)) for entry in REGISTRY]),
        "1..9",
        "probe on, off (detached)",
        "system calls, executions, latency, counters: off (detached from the kernel) and on again",
        ("-".join(dict.fromkeys((_PROBES[0], _PROBES[-1]))), "toggle"),
    ),
    KeyRow(
        (Key("tab", "tab", "focus_pane", (1,)), Key("shift+tab", "shift+tab", "focus_pane", (-1,))),
        "tab",
        "next pane, shift+tab back",
        "next pane, the one before",
        ("tab", "pane"),
    ),
    _one(
        "z",
        "zoom",
        "zoom",
        text="pane on the whole screen",
        readme="pane on the whole screen, and back",
        title="Zoom the pane in focus",
    ),
    _one(
        "enter",
        "enter",
        "drill",
        text="drill in",
        readme="into the row under the cursor: call → its processes → their calls; a program → "
        "all of its arguments; a target → who called it; a process → its counters",
    ),
    _one(
        "escape",
        "step_out",
        "back",
        cap="esc",
        text="back; clear the text filter",
        readme="back; out of the text filter; out of the zoom",
    ),
    KeyRow(
        (
            Key("up", "up", "move", ("up",)),
            Key("down", "down", "move", ("down",)),
            Key("pageup", "pgup", "move", ("pageup",)),
            Key("pagedown", "pgdn", "move", ("pagedown",)),
            Key("home", "home", "move", ("home",)),
        ),
        "arrows",
        "move; pgup pgdn home end",
        "move the cursor",
    ),
    KeyRow(
        (Key("s", "s", "sort", (False,)), Key("S", "S", "sort", (True,))),
        "s S",
        "sort by next column; turn",
        "sort by the next column; turn the order round",
        ("s", "sort"),
    ),
    _one(
        "slash",
        "filter",
        "filter",
        cap="/",
        text="rows that contain a text",
        readme="rows that contain a text, while you type",
        title="Filter rows by text",
    ),
    _one(
        "F",
        "kernel_filter",
        "kernel filter",
        text="filter in the kernel",
        readme="count only what you ask for, inside the kernel: "
        "`pid=N comm=NAME user=NAME cgroup=/PATH`",
        title="Filter in the kernel",
    ),
    _one(
        "p",
        "only_process",
        "this process",
        text="this process only; all again",
        readme="count only the process under the cursor; again: all",
    ),
    _one(
        "f",
        "find",
        "find",
        text="",
        readme="find something to time, and add it to the latency pane",
        title=FIND,
    ),
    _one(
        "space",
        "pause",
        "pause",
        text="pause; play the past",
        readme="pause the screen; the probes go on. In the past: play, hold",
        title="Pause or go on",
    ),
    KeyRow(
        (
            Key("left", "left", "step", (-1,), "Back in time"),
            Key("right", "right", "step", (1,), "Onwards in time"),
        ),
        "<- ->",
        "the past, onwards; , . 10 s",
        "back in time and onwards, one interval",
        ("←→", "time"),
    ),
    KeyRow(
        (
            Key("shift+left,comma", ",", "leap", (-1,)),
            Key("shift+right,full_stop", ".", "leap", (1,)),
        ),
        ", .",
        "",
        "back in time and onwards, ten seconds",
        (",.", "10 s"),
    ),
    KeyRow(
        (Key("end", "end", "end"),),
        "end [ ]",
        "now; oldest, newest",
        "from the past to now; else to the last row",
        ("end", "now"),
    ),
    KeyRow(
        (
            Key("left_square_bracket", "[", "oldest", title="The oldest moment"),
            Key("right_square_bracket", "]", "newest", title="Now, or the recording's end"),
        ),
        "[ ]",
        "",
        "the oldest moment, and now; of a recording its beginning and its end",
        ("[]", "ends"),
    ),
    KeyRow(
        (Key("less_than_sign", "<", "speed", (-1,)), Key("greater_than_sign", ">", "speed", (1,))),
        "< >",
        "speed of the past",
        "play the past slower, faster",
        ("<>", "speed"),
    ),
    _one(
        "w",
        "window",
        "window",
        text="window: 1 tick, 10 s, 60 s, all",
        readme="rates and percentiles over one interval, 10 s, 60 s, or since the start",
        title="Window: 1 interval, 10 s, 60 s, all",
    ),
    KeyRow(
        (Key("e", "e", "export", (), "Export the last minute to a file (.html, .json, .svg)"),),
        "e r",
        "export a minute; record",
        "export the last minute: one HTML file (or `.json`, `.svg`)",
        ("e", "export"),
    ),
    _one(
        "r",
        "record",
        "record",
        text="",
        readme="record to a file; again: end it",
        title="Record to a file, or end it",
    ),
    KeyRow(
        (
            Key("plus,equals_sign", "+", "interval", (1,), "Longer interval"),
            Key("minus", "-", "interval", (-1,), "Shorter interval"),
        ),
        "+ -",
        "longer, shorter interval",
        "longer, shorter interval",
        ("+-", "interval"),
    ),
    _one(
        "b",
        "slow_link",
        "all frames",
        text="slow link: no graphs; undo",
        readme="slow link: few frames without graphs, or all again",
        title="Slow link: few frames without graphs, on or off",
    ),
    _one(
        "B",
        "lift_budget",
        "budget off",
        text="budget off for 60 s; on again",
        readme="the budget is off for 60 s: what was reduced to stay within it comes back; again: "
        "it holds",
        title="Budget: off for 60 s, or on again",
    ),
    KeyRow(
        (Key("n", "n", "host", (1,)), Key("N", "N", "host", (-1,))),
        "n N",
        "next, previous host at its newest; what is paused stays paused",
        "the next machine, the one before, where `attach` shows several",
        ("n", "next host"),
        several=True,
    ),
    KeyRow(
        (Key("ctrl+p", "ctrl+p", "command_palette", everywhere=True),),
        "ctrl+p",
        "command palette",
        "command palette: all commands by name",
        ("^p", "palette"),
    ),
    _one("question_mark", "help", "help", cap="?", text="", readme="help", title="Help"),
    KeyRow(
        (Key("ctrl+z", "ctrl+z", "suspend_process"),),
        "ctrl+z",
        "",
        "to the shell; `fg` comes back",
    ),
    KeyRow(
        (Key("q", "q", "quit", (), "Quit"), Key("ctrl+c", "ctrl+c", "quit", everywhere=True)),
        "q",
        "quit; nothing stays behind",
        "quit; nothing stays behind",
        ("q", "quit"),
    ),
)
KEYS: tuple[Key, ...] = tuple(key for row in ROWS for key in row.keys)
_ROW_OF = {key.command: row for row in ROWS for key in row.keys}


def hint(command: str, word: str = "", plain: bool = False) -> Hint:
    """The footer's text for a command: its key and its word, which `word` can replace.

    `plain` is True for ASCII only.
    """
    row = _ROW_OF[command]
    key, usual = row.hint
    return (key if key.isascii() or not plain else row.caps, word or usual)


def help_rows(several: bool = False) -> list[tuple[str, str]]:
    """The help's lines (keys, action): those of any dashboard, or those for `several` hosts."""
    return [(row.caps, row.help) for row in ROWS if row.help and row.several == several]


def readme_rows() -> list[str]:
    """The lines of README's table."""
    return [f"| {' '.join([f'`{key.caps}`' for key in row.keys])} | {row.readme} |" for row in ROWS]
