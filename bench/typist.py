# SPDX-License-Identifier: Apache-2.0
"""Somebody who uses the dashboard, looks at the screen, and leaves everything as it was."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.emulator import Screen
from bench.held import children, held, is_zombie, own_children, programs
from bench.measure import BenchError
from bench.screen import Terminal
from tui.registry import REGISTRY

DEADLINE = 60.0
"""Seconds until something that a key has asked for is overdue."""
PAUSE, LONG_PAUSE, ESCAPE_PAUSE = 0.06, 0.2, 0.4
"""Seconds behind a key; what follows escape too soon is taken for one key with it."""
ESCAPE, ENTER, TAB, CLEAR = "\x1b", "\r", "\t", "\x15"
UP, DOWN, RIGHT, LEFT, END = (f"\x1b[{letter}" for letter in "ABCDF")
TARGETS = ("uprobe:libc:getppid", "syscall:getppid", "tracepoint:sched:sched_process_fork")
FOCUS, PAST, HELP = "\u2501 {key} ", "PAST", "any key closes"
"""How a pane's title begins that has the keys, what the header says away from now, and a word
of the help."""


class Typist:
    """Types into a dashboard in a terminal, which is bench.soaked and was given the file `told`.

    Files are written to `folder`; `filters` are the kernel filters that it began with.
    """

    def __init__(
        self,
        terminal: Terminal,
        columns: int,
        rows: int,
        folder: Path,
        told: Path,
        filters: str = "",
    ) -> None:
        self.terminal, self.filters = terminal, filters
        self.pid = terminal.process.pid
        self.folder, self.told = folder, told
        self.rounds = 0
        self._screen = Screen(columns, rows)
        self.press(pause=3.0)
        self.wait("all probes are on", self._loaded)
        self.programs = programs(self.pid)

    def tasks(self) -> Iterator[str]:
        """One round, in parts: each says what was just done and undone."""
        number, self.rounds = self.rounds, self.rounds + 1
        half = len(REGISTRY) // 2
        for entry in REGISTRY[:half] if number % 2 else REGISTRY[half:]:
            self.change(entry.key, f"{entry.name} is off")
            self.back(entry.key, f"{entry.name} is on")
            yield f"{entry.name} off and on"
        self.look_into(REGISTRY[number % len(REGISTRY)].name)
        yield "rows"
        self.travel()
        yield "time"
        self.filter()
        yield "filters"
        if number % 2:
            self.time_calls()
            yield "durations of calls"
        else:
            spec = TARGETS[number // 2 % len(TARGETS)]
            self.add_target(spec)
            yield f"{spec} timed"
        self.record(self.folder / f"{number}.ptrec")
        yield "a recording"
        self.export(self.folder / f"{number}.html")
        yield "an export"

    def held(self) -> dict[str, float]:
        """Figures of the dashboard and its own children, and the number of all processes.

        The broker's children, loaders and searchers, come and go.
        """
        self.told.write_text("")
        os.kill(self.pid, signal.SIGUSR1)
        self.wait("it tells of its memory", lambda: bool(self.told.read_text()))
        small, large = map(int, self.told.read_text().split())
        below = children(self.pid)
        found = held([self.pid, *own_children(self.pid)])
        found |= {"small objects": small / 1000, "large objects": large / 1e6}
        return {**found, "processes": 1 + len(below)}

    # -- keys and the screen -----------------------------------------------------------------

    def press(self, *keys: str, pause: float = PAUSE) -> None:
        """Type keys, and look at the screen behind each; without any, only look."""
        for key in keys or ("",):
            os.write(self.terminal.master, key.encode())
            self.terminal.read(ESCAPE_PAUSE if key == ESCAPE else pause, self._screen.feed)
        if self.terminal.process.poll() is not None:
            raise BenchError(f"the dashboard has ended; its screen:\n{self.shown()}")

    def shown(self) -> str:
        """The screen."""
        return "\n".join(self._screen.lines())

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until something is so; raises BenchError when it is overdue."""
        end = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > end:
                raise BenchError(f"overdue: {what}; the screen:\n{self.shown()}")
            self.press(pause=PAUSE)

    def insist(self, key: str, what: str, condition: Callable[[], bool]) -> None:
        """Type a key until something is so; raises BenchError when it is overdue."""
        end = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > end:
                raise BenchError(f"overdue: {what}; the screen:\n{self.shown()}")
            self.press(key, pause=LONG_PAUSE)

    def catch_up(self) -> None:
        """Open the help and close it: all keys before have been taken then."""
        self.press("?")
        self.wait("the help is open", lambda: HELP in self.shown())
        self.press("?", pause=LONG_PAUSE)
        self.wait("the help is closed", lambda: HELP not in self.shown())

    def focus(self, name: str) -> None:
        """Give the keys to a probe's pane."""
        title = FOCUS.format(key=next(entry.key for entry in REGISTRY if entry.name == name))
        self.insist(TAB, f"{name} has the keys", lambda: title in self.shown())

    def prompt(self, key: str, label: str, text: str) -> None:
        """Open a prompt and answer it."""
        self.press(key)
        self.wait(f"a prompt for {key}", lambda: label in self.shown())
        self.press(CLEAR, text, pause=LONG_PAUSE)
        self.press(ENTER)
        self.wait(f"the prompt for {key} is done", lambda: label not in self.shown())

    # -- what is attached --------------------------------------------------------------------

    def _loaded(self) -> bool:
        """Whether there are programs, and a while later as many."""
        before = programs(self.pid)
        self.press(pause=2.0)
        return before == programs(self.pid) > 0

    def rest(self) -> None:
        """Wait until every child that has ended is known to have."""
        self.wait("no zombie is left", lambda: not any(map(is_zombie, children(self.pid))))
        self.press(pause=LONG_PAUSE)

    def change(self, key: str, what: str) -> None:
        """Type what makes the number of programs another one."""
        self.press(key)
        self.wait(what, lambda: programs(self.pid) != self.programs)
        self.rest()

    def back(self, key: str, what: str) -> None:
        """Type what makes the number of programs that of the start."""
        self.press(key)
        self.wait(what, lambda: programs(self.pid) == self.programs)
        self.rest()

    # -- tasks -------------------------------------------------------------------------------

    def look_into(self, name: str) -> None:
        """Into rows of a pane and out, other orders, the whole screen, by process, the help."""
        self.focus(name)
        self.press(DOWN, DOWN, ENTER, ENTER, ESCAPE, ESCAPE, "s", "S", "z", "z")
        self.catch_up()
        self.focus("syscalls")
        self.press("v", "p", "v", pause=LONG_PAUSE)
        self.prompt("F", "count only:", self.filters)

    def travel(self) -> None:
        """Other windows, back in time and to now, a pause."""
        self.press(*"wwww")
        self.insist(LEFT, "the past is shown", lambda: PAST in self.shown())
        self.press(LEFT, RIGHT, ",", "[")
        # Steps are taken when there is time for them: behind the key for now, if that waits too.
        self.catch_up()
        self.press(END)
        self.wait("it is now", lambda: PAST not in self.shown())
        self.press(" ", " ", pause=LONG_PAUSE)

    def filter(self) -> None:
        """Rows by a text, and what is counted in the kernel."""
        self.prompt("/", "filter:", "sh")
        self.prompt("/", "filter:", "")
        self.prompt("F", "count only:", "comm=sh")
        self.prompt("F", "count only:", self.filters)

    def time_calls(self) -> None:
        """Durations of system calls, on and off."""
        self.focus("syscalls")
        self.change("l", "calls are timed")
        self.back("l", "calls are not timed any more")

    def add_target(self, spec: str) -> None:
        """One more thing to time, and away with it."""
        self.prompt("f", "find:", spec)
        self.wait(f"{spec} is timed", lambda: programs(self.pid) != self.programs)
        self.rest()
        self.focus("latency")
        self.press(pause=0.5)
        self.back("d", f"{spec} is not timed any more")

    def record(self, path: Path) -> None:
        """A recording, begun and ended."""
        self.prompt("r", "record to:", str(path))
        self.wait("it is recorded", path.is_file)
        self.press("r", pause=LONG_PAUSE)
        self.wait("nothing is recorded any more", lambda: " REC " not in self._screen.lines()[0])
        path.unlink()

    def export(self, path: Path) -> None:
        """The last minute as a page."""
        self.prompt("e", "export to:", str(path))
        self.wait("it is exported", lambda: " in " + str(path) in self.shown())
        self.rest()
        path.unlink()
