# SPDX-License-Identifier: Apache-2.0
"""Starts a dashboard on the terminal, for a local source or for remote hosts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from probes.recording.history import MOST_BYTES, SECONDS, History
from probes.source import Source
from tui.app.app import ProbetopApp
from tui.hosts.remote_session import LinkedSource, RemoteSession
from tui.sessions.session import Session
from tui.shared.text import safe
from tui.shared.theme import choose


def dashboard(
    source: Source,
    *,
    ascii: bool = False,  # noqa: A002
    history: float = SECONDS,
) -> ProbetopApp:
    """Create the dashboard of a Source that is not started.

    It keeps `history` seconds of Frames for going back in time, except for a recording.
    """
    theme = choose(ascii)
    return ProbetopApp([Session(source, theme, History(history))], theme)


def attached_dashboard(
    sources: Sequence[LinkedSource],
    *,
    ascii: bool = False,  # noqa: A002
    history: float = SECONDS,
) -> ProbetopApp:
    """Create the dashboard of remote hosts, which share the history's memory equally."""
    theme = choose(ascii)
    share = MOST_BYTES // len(sources)
    sessions = [RemoteSession(source, theme, History(history, share)) for source in sources]
    return ProbetopApp(sessions, theme)


def run_app(
    source: Source,
    *,
    ascii: bool = False,  # noqa: A002
    history: float = SECONDS,
) -> int:
    """Show a Source until the user quits or it ends, then stop it.

    Returns the exit status: 0; 1 if the source ended by itself, with a sentence on stderr; 2
    without a terminal; 128 plus the signal's number after a signal.
    """
    return run(lambda: dashboard(source, ascii=ascii, history=history))


def run_attached(
    sources: Sequence[LinkedSource],
    *,
    ascii: bool = False,  # noqa: A002
    history: float = SECONDS,
) -> int:
    """Show remote hosts until the user quits or all sources end, then stop all sources.

    Returns the same exit status as `run_app`.
    """
    return run(lambda: attached_dashboard(sources, ascii=ascii, history=history))


def run(make: Callable[[], ProbetopApp]) -> int:
    """Run a dashboard on the terminal; returns the same exit status as `run_app`."""
    if not (sys.stdin.isatty() and sys.__stderr__ is not None and sys.__stderr__.isatty()):
        print(
            "probetop: the dashboard needs a terminal on stdin and stderr: "
            "for scripts there is 'probetop stream'",
            file=sys.stderr,
        )
        return 2
    app = make()
    try:
        app.run()
    finally:
        app.stop_sources().join()
        app.end_recordings()
    if app.ended is not None:
        # The interpreter's own flush at exit would wait for a terminal that reads nothing.
        writer = app.controllers.slow_link.writer
        if writer is None or not writer.held:
            print(f"probetop: {safe(app.ended, app.drawing_theme.plain)}", file=sys.stderr)
        return 1
    return app.return_code or 0
