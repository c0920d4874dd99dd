# SPDX-License-Identifier: Apache-2.0
"""All private parts of Textual that this program uses, under public names.

Textual is pinned exactly, because another version may have other private parts. Each part has
its reason here; `tests/unit/tui/terminal/test_textual_private.py` checks that no other module uses
any, that those which are overridden exist, and that the version is pinned. What they do together is
tested by tests/pilot/test_slow_link.py (repaints), tests/unit/tui/terminal/test_tui_compositor.py
(changed cells), tests/pilot/test_palette.py (errors), and tests/kernel/test_wire.py with
test_terminal_restored.py (driver, signals, keys).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Generic

from rich.console import RenderableType
from textual import events
from textual._compositor import ChopsUpdate, Compositor
from textual._xterm_parser import XTermParser
from textual.app import App, ReturnType
from textual.dom import DOMNode
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Region
from textual.screen import Screen

__all__ = [
    "ChopsUpdate",
    "Compositor",
    "OpenApp",
    "OpenDriver",
    "OpenScreen",
    "XTermParser",
    "driver_of",
    "escape_due",
]
# ChopsUpdate and Compositor: Textual has no public way to encode a repaint otherwise.
# XTermParser: a driver that waits for input by itself has to parse it.


class OpenDriver(LinuxDriver):
    """A driver for terminals with a writer of its own and hooks for signals.

    A subclass sets `writer` before it calls `__init__`.
    """

    writer: Any

    # LinuxDriver makes a thread that writes, and starts and stops it through this name.
    @property
    def _writer_thread(self) -> Any:
        return self.writer

    @_writer_thread.setter
    def _writer_thread(self, thread: Any) -> None:
        pass

    # LinuxDriver suspends in the signal handler itself, in the middle of whatever runs then.
    def _sigtstp_application(self, *_: object) -> None:
        self.on_stop_signal()

    def _sigcont_application(self, *_: object) -> None:
        self.on_continue_signal()

    def on_stop_signal(self, *_: object) -> None:
        """Handle SIGTSTP, in the signal handler."""
        raise NotImplementedError

    def on_continue_signal(self, *_: object) -> None:
        """Handle SIGCONT, in the signal handler."""
        raise NotImplementedError

    # The driver's own hooks get neither the application nor its loop.
    @property
    def application(self) -> App[Any]:
        """The application that the driver belongs to."""
        return self._app

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The application's event loop."""
        return self._loop

    # To end a thread that waits for input, it has to be known whether there is one.
    @property
    def key_thread(self) -> threading.Thread | None:
        """The thread that reads keys, None before it is started."""
        return self._key_thread

    @property
    def debug(self) -> bool:
        """The parser of keys logs what it does."""
        return self._debug

    # Such a terminal sends its size among the keys, so that SIGWINCH must not be handled too.
    @property
    def sends_size(self) -> bool:
        """The terminal reports a change of its size in its input."""
        return self._in_band_window_resize

    @property
    def may_suspend(self) -> bool:
        """The application is to give the terminal back when it is stopped."""
        return self._auto_restart

    # LinuxDriver believes COLUMNS and LINES of the environment, which change with no window.
    def _get_terminal_size(self) -> tuple[int, int]:
        return self.terminal_size()

    def terminal_size(self) -> tuple[int, int]:
        """Columns and rows of the terminal."""
        raise NotImplementedError


class OpenScreen(Screen[Any]):
    """A screen with a compositor of its own and a hook for repaints."""

    def __init__(self, compositor: Compositor) -> None:
        super().__init__()
        # Screen makes its own, and has no argument for another.
        self._compositor = compositor

    # There is no public hook before a repaint, and to drop it afterwards would lose it.
    def _compositor_refresh(self) -> None:
        self.send_dirty()

    def send_dirty(self) -> None:
        """Send what became dirty."""
        super()._compositor_refresh()

    @property
    def dirty_regions(self) -> set[Region]:
        """Regions that changed since the last repaint."""
        return self._compositor._dirty_regions

    def keep_dirty(self, most: int) -> None:
        """Leave what is dirty for a later repaint: as one region if there are more than `most`."""
        self._dirty_widgets.clear()
        if len(self._compositor._dirty_regions) > most:
            self._compositor._dirty_regions = {self.size.region}


class OpenApp(App[ReturnType], Generic[ReturnType]):
    """An App with hooks for repaints and for the traceback of an error."""

    # Here alone a repaint can be dropped as a whole: the driver sees text without bounds.
    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        show = super()._display
        if renderable is None or self._batch_count:
            show(screen, renderable)
        else:
            self.send_repaint(lambda: show(screen, renderable))

    def send_repaint(self, send: Callable[[], None]) -> None:
        """Send a repaint by calling `send`, or drop it."""
        send()

    # Textual's traceback has local variables, and with them what a process chose, as they are.
    def _fatal_error(self) -> None:
        self._exit_renderables.append(self.error_text())
        self._close_messages_no_wait()

    def error_text(self) -> RenderableType:
        """What is printed at the end for the exception that is being handled."""
        raise NotImplementedError

    # Textual runs actions that a style names, and texts on the screen come from processes.
    async def _broker_event(
        self, event_name: str, event: events.Event, default_namespace: DOMNode
    ) -> bool:
        return False


def driver_of(app: App[Any]) -> Driver | None:
    """The driver of an application, None before it runs: App has no public name for it."""
    return app._driver


def escape_due(parser: XTermParser) -> float | None:
    """When an escape that nothing followed becomes a key, monotonic seconds; None without one."""
    due: float | None = parser._timeout_time
    return due
