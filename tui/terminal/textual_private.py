# SPDX-License-Identifier: Apache-2.0
"""All private parts of Textual that this program uses, under public names.

Textual is pinned exactly, because another version may have other private parts. Each part is listed
here with its reason. `tests/unit/tui/terminal/test_textual_private.py` checks that no other module
uses a private part, that each overridden part exists, and that the version is pinned. Their
behaviour is tested by tests/pilot/test_slow_link.py (repaints),
tests/unit/tui/terminal/test_tui_compositor.py (changed cells), tests/pilot/test_palette.py
(errors), and tests/kernel/test_wire.py with test_terminal_restored.py (driver, signals, keys).
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
# ChopsUpdate and Compositor: Textual has no public way to encode a repaint.


class OpenDriver(LinuxDriver):
    """A driver for terminals with a writer of its own and hooks for signals.

    A subclass sets `writer` before it calls `__init__`.
    """

    writer: Any

    # LinuxDriver creates its writer thread, starts it and stops it through this name.
    @property
    def _writer_thread(self) -> Any:
        return self.writer

    @_writer_thread.setter
    def _writer_thread(self, thread: Any) -> None:
        pass

    # LinuxDriver suspends inside the signal handler, which may interrupt any code.
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

    # The driver's public hooks receive neither the application nor its loop.
    @property
    def application(self) -> App[Any]:
        """The application that owns the driver."""
        return self._app

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The application's event loop."""
        return self._loop

    # Only a thread that was started can be joined.
    @property
    def key_thread(self) -> threading.Thread | None:
        """The thread that reads keys; None before it is started."""
        return self._key_thread

    @property
    def debug(self) -> bool:
        """True if the key parser writes a debug log."""
        return self._debug

    # A terminal that reports its size in the input must not be handled by SIGWINCH as well.
    @property
    def sends_size(self) -> bool:
        """True if the terminal reports size changes in its input."""
        return self._in_band_window_resize

    @property
    def may_suspend(self) -> bool:
        """True if the application restores the terminal when it is stopped."""
        return self._auto_restart

    # LinuxDriver believes COLUMNS and LINES of the environment, which change with no window.
    def _get_terminal_size(self) -> tuple[int, int]:
        return self.terminal_size()

    def terminal_size(self) -> tuple[int, int]:
        """The terminal's columns and rows."""
        raise NotImplementedError


class OpenScreen(Screen[Any]):
    """A screen with its own compositor and a hook for repaints."""

    def __init__(self, compositor: Compositor) -> None:
        super().__init__()
        # Screen creates its compositor itself and has no parameter for it.
        self._compositor = compositor

    # Textual has no public hook before a repaint, and a repaint dropped afterwards would be lost.
    def _compositor_refresh(self) -> None:
        self.send_dirty()

    def send_dirty(self) -> None:
        """Send the dirty regions."""
        super()._compositor_refresh()

    @property
    def dirty_regions(self) -> set[Region]:
        """Regions that have changed since the last repaint."""
        return self._compositor._dirty_regions

    def keep_dirty(self, most: int) -> None:
        """Keep the dirty regions for a later repaint, merged into one if there are more than
        `most`."""
        self._dirty_widgets.clear()
        if len(self._compositor._dirty_regions) > most:
            self._compositor._dirty_regions = {self.size.region}


class OpenApp(App[ReturnType], Generic[ReturnType]):
    """An App with hooks for repaints and for the traceback of an error."""

    # This is the only place that sees a whole repaint and can drop it; the driver sees text pieces.
    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        show = super()._display
        if renderable is None or self._batch_count:
            show(screen, renderable)
        else:
            self.send_repaint(lambda: show(screen, renderable))

    def send_repaint(self, send: Callable[[], None]) -> None:
        """Send a repaint by calling `send`, or drop it."""
        send()

    # Textual's traceback prints local variables unescaped, and processes choose some of their text.
    def _fatal_error(self) -> None:
        self._exit_renderables.append(self.error_text())
        self._close_messages_no_wait()

    def error_text(self) -> RenderableType:
        """The text that is printed at exit for the current exception."""
        raise NotImplementedError

    # Textual runs actions named in a style, and text on the screen comes from processes.
    async def _broker_event(
        self, event_name: str, event: events.Event, default_namespace: DOMNode
    ) -> bool:
        return False


def driver_of(app: App[Any]) -> Driver | None:
    """The application's driver, None before it runs; App has no public name for it."""
    return app._driver


def escape_due(parser: XTermParser) -> float | None:
    """Monotonic seconds when a lone escape becomes a key; None if no escape is pending."""
    due: float | None = parser._timeout_time
    return due
