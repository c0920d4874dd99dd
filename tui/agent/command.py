# SPDX-License-Identifier: Apache-2.0
"""The command `serve`: starts the broker, drops privileges, and answers over HTTP.

SIGTERM, SIGINT and SIGHUP end it within a second. It cannot reload a token file or certificate,
which needs privileges, so a service manager has to restart it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probes.broker.jobs import DOCTOR, Helper
from probes.core.errors import ProbeError
from probes.host import content_file
from probes.host.privileges import invoking_user, service_user
from probes.live.source import LiveSource
from tui.agent.options import resolve
from tui.agent.owner_token import create
from tui.agent.sd_notify import Notifier
from tui.agent.setup import Complain, Setup
from tui.registry import REGISTRY
from tui.settings.options import Options

PAGE = "tui.agent.state.snapshot_worker:make"
PAGE_SECONDS = 30.0
MOST_FRAMES, MOST_PAGE = 64 << 20, 4 << 20
"""Most bytes of the Frames that a page is made of, and of the page.

A minute of 256 CPUs with 2,000 of 16,384 processes active takes 45 MB; a page's tables end at 1 MB.
"""


def serve(
    options: Options,
    probe_options: Mapping[str, Mapping[str, Any]],
    typed: Mapping[str, Any],
    complain: Complain,
) -> int:
    """Run the agent until a signal ends it; return the exit status. Raises ProbeError."""
    user, owner = service_user(options.run_as), invoking_user(None)
    setup = Setup(options, resolve(typed), probe_options, user, Notifier(), owner)
    source = _open(setup)
    from tui.agent.service import run

    try:
        return run(setup, source, complain)
    finally:
        source.stop()
        if setup.own is not None:
            setup.own.close()


def _open(setup: Setup) -> LiveSource:
    """Return the Source; from here on this process has no privileges."""
    from probes.core import kernel

    if not kernel.may_load():
        why = "loading BPF programs needs root (CAP_BPF and CAP_PERFMON)"
        raise ProbeError(why, "run it through sudo, or as a service")
    from probes.host import file_access
    from probes.live.start import open_live

    options, files = setup.options, page_files()
    setup.page_files = files
    return open_live(
        {entry.name: entry.probe_path for entry in REGISTRY},
        on=options.probes,
        options=setup.probe_options,
        filters=options.filters,
        interval=options.interval,
        run_as=setup.user,
        cost_always=options.cost_always,
        budget=options.budget,
        include_self=options.include_self,
        log=options.log,
        helpers={"doctor": DOCTOR, "page": Helper(PAGE, PAGE_SECONDS, setup.user, files=files)},
        preload=lambda: _preload(setup),
        asker=file_access.for_clients(offsets=setup.serve.allow_offsets),
        fixed=options.fixed,
        serves=True,
    )


def page_files() -> tuple[int, int]:
    """Return files without names for a page's input and for the page.

    They are created before the broker starts, because it accepts no descriptors later.
    """
    frames = content_file.create("probetop-frames", MOST_FRAMES)
    return frames, content_file.create("probetop-page", MOST_PAGE)


def _preload(setup: Setup) -> None:
    """Do all that needs privileges, or files that may become unreadable."""
    try:
        from tui.agent import service
        from tui.agent.http import sockets
    except ImportError as error:
        why = f"`serve` needs packages that are not installed ({error.name})"
        raise ProbeError(why, "pip install 'probetop[serve]'") from error
    service.preload()
    setup.context = sockets.tls(setup.serve)
    setup.sock = sockets.open_socket(setup.serve, setup.user, setup.owner)
    if setup.serve.listen.path is None and not setup.serve.tokens:
        try:
            host, port = setup.sock.getsockname()[:2]
            setup.own = create(host, port, setup.owner)
        except ProbeError as error:
            setup.no_token = error
