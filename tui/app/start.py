# SPDX-License-Identifier: Apache-2.0
"""Starting a dashboard on the terminal, of one source or of other machines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from probes.recording.history import MOST_BYTES, SECONDS, History
from probes.source import Source
from tui.app.app import ProbetopApp
from tui.hosts.remote_session import LinkedSource, RemoteSession
from tui.sessions.session import Session
from tui.shared import theme
from tui.shared.text import safe


def dashboard(
    source: Source,
    *,
    ascii: bool = False,  # noqa: A002
    history: float = SECONDS,
) -> ProbetopApp:
    """The dashboard of a Source that is not started.

    `history` seconds of Frames are kept for going back in time, unless it is a recording.
    """
    look = theme.choose(ascii)
    return ProbetopApp([Session(source, look, History(history))], look)


def attached_dashboard(
    sources: Sequence[LinkedSource],
    *,
    ascii: bool = False,  # noqa: A002
    history: float = SECONDS,
) -> ProbetopApp:
    """The dashboard of other machines; each has an equal share of the memory for history."""
    look = theme.choose(ascii)
    share = MOST_BYTES // len(sources)
    sessions = [RemoteSession(source, look, History(history, share)) for source in sources]
    return ProbetopApp(sessions, look)


def run_app(
    source: Source,
    *,
    ascii: bool = False,  # noqa: A002
    history: float = SECONDS,
) -> int:
    """Show a Source until the user quits or it ends; the source is stopped in any case.

    Returns the program's exit status: 0, 1 with a sentence on stderr when the source ended
    by itself, 2 without a terminal, 128 and its number for a signal.
    """
    return run(lambda: dashboard(source, ascii=ascii, history=history))


def run_attached(
    sources: Sequence[LinkedSource],
    *,
    ascii: bool = False,  # noqa: A002
    history: float = SECONDS,
) -> int:
    """Show other machines until the user quits or all of them ended; returns `run_app`'s status.

    All sources are stopped in any case.
    """
    return run(lambda: attached_dashboard(sources, ascii=ascii, history=history))


def run(make: Callable[[], ProbetopApp]) -> int:
    """Run a dashboard on the terminal, if there is one; returns the status of `run_app`."""
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
        # A terminal that takes nothing would be waited for.
        wire = app.controllers.slow_link.wire
        if wire is None or not wire.held:
            print(f"probetop: {safe(app.ended, app.look.plain)}", file=sys.stderr)
        return 1
    return app.return_code or 0
