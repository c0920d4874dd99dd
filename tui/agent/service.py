# SPDX-License-Identifier: Apache-2.0
"""The running agent: connects its parts, from the first request to the last."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from probes.host.file_access import OWN_RIGHTS
from probes.host.privileges import NOBODY, User
from probes.live.source import LiveSource
from probes.probe import Probe
from probes.symbols.target_spec import trusting
from tui.agent.http.api import application
from tui.agent.http.auth import Authorizer, shows_processes
from tui.agent.http.frame_streams import Streams
from tui.agent.http.request_context import Agent
from tui.agent.http.server import Server
from tui.agent.metrics.collector import Metrics
from tui.agent.sd_notify import Notifier
from tui.agent.setup import Complain, Setup
from tui.agent.state.client_view import Sight, views
from tui.agent.state.frame_hub import Hub
from tui.agent.state.measurements import Runs
from tui.agent.state.private_targets import PrivateTargets
from tui.agent.state.probe_control import Control
from tui.agent.state.rolling_snapshot import Snapshots
from tui.export.write import new_summarizer
from tui.registry import REGISTRY

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def preload() -> None:
    """Import modules that are rarely needed and may become unreadable."""
    import_module("encodings.idna")
    new_summarizer()
    for entry in REGISTRY:
        entry.collector_class()


def run(setup: Setup, source: LiveSource, complain: Complain) -> int:
    """Answer requests until a signal or the Source's end; return the exit status."""
    return asyncio.run(_serve(setup, source, complain))


async def _serve(setup: Setup, source: LiveSource, complain: Complain) -> int:
    loop, end = asyncio.get_running_loop(), asyncio.Event()
    loop.set_exception_handler(lambda _, about: complain(_words(about)))
    for number in ENDING:
        # A signal that nohup or a shell's background job ignores stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, end.set)
    agent = assemble(setup, source)
    agent.hub.on_end = lambda why: end.set()
    server = Server(application(agent, authorizer_of(setup)))
    assert setup.sock is not None
    # The targets of the command line, before any client can ask.
    await agent.private.learn(trusting(OWN_RIGHTS, setup.probe_options).trusted)
    agent.hub.start()
    agent.control.apply()
    await server.start(setup.sock, setup.context)
    for line in _where(setup, setup.sock):
        complain(line)
    setup.notifier.say("READY=1")
    alive = asyncio.create_task(_say_alive(setup.notifier, agent.hub))
    await end.wait()
    setup.notifier.say("STOPPING=1")
    alive.cancel()
    agent.streams.end()
    agent.control.close()
    await agent.runs.close()
    await server.stop()
    if agent.hub.ended is not None:
        complain(agent.hub.ended)
    return 1 if agent.hub.ended is not None else 0


def assemble(setup: Setup, source: LiveSource) -> Agent:
    kinds: dict[str, type[Probe]] = {entry.name: entry.probe_class() for entry in REGISTRY}
    hub, options = Hub(source), setup.options
    control = Control(
        hub,
        kinds,
        on=options.probes,
        options=setup.probe_options,
        filters=options.filters,
        interval=options.interval,
        linger=setup.serve.linger,
    )
    serve, private = setup.serve, PrivateTargets()
    seen = views(private)
    streams, snapshots = Streams(kinds, seen), Snapshots(control, setup.page_files)
    # Without tokens or a socket, only clients with control can read runs.
    read: Sight | None = "token" if serve.tokens else "socket" if serve.listen.path else None
    runs = Runs(control, kinds, seen[read] if read is not None else None)
    name_of = source.naming.names.describe
    metrics = Metrics(top=serve.top, cgroups=serve.cgroups, name_of=name_of, views=seen)
    hub.listeners += [lambda frame: streams.add(frame, hub.number), snapshots.add, runs.add]
    hub.listeners.append(metrics.add)
    parts = hub, control, streams, runs, snapshots, metrics, private, seen
    return Agent(*parts, bool(serve.tokens), serve.allow_offsets)


def authorizer_of(setup: Setup) -> Authorizer:
    """The checks of the clients' access."""
    serve = setup.serve
    return Authorizer(
        serve.listen,
        serve.tokens,
        serve.hosts,
        owner=setup.owner.uid,
        own_token=setup.own.secret if setup.own is not None else None,
        public=shows_processes(),
    )


async def _say_alive(notifier: Notifier, hub: Hub) -> None:
    """Send keep-alives to the service manager's watchdog while Frames arrive."""
    if notifier.watchdog is None:
        return
    loop = asyncio.get_running_loop()
    number, since = 0, loop.time()
    while True:
        if hub.number != number:
            number, since = hub.number, loop.time()
        if hub.frame is None or loop.time() - since < 3 * hub.frame.interval + 10:
            notifier.say("WATCHDOG=1")
        await asyncio.sleep(notifier.watchdog)


def _where(setup: Setup, sock: socket.socket) -> list[str]:
    """Lines with the addresses and the access rules."""
    listen = setup.serve.listen
    if listen.path is not None:
        where = f"unix:{listen.path}"
    else:
        host, port = sock.getsockname()[:2]
        scheme = "https" if setup.context is not None else "http"
        where = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    more: list[str] = []
    if setup.serve.tokens:
        who = "a token is needed"
    elif listen.path is not None:
        who = f"{_name(setup.owner)} and root control it, others who may open it read"
    else:
        who = "anybody on this machine may read"
        if setup.own is not None:
            more = [f"{_name(setup.owner)} controls it: curl -H @{setup.own.path} {where}/v1/..."]
        elif setup.no_token is not None:
            more = [f"nobody controls it: {setup.no_token.why}; {setup.no_token.fix}"]
    return [f"serving on {where} as {_name(setup.user)}; {who}", *more]


def _name(user: User) -> str:
    return user.name or {0: "root", NOBODY: "nobody"}.get(user.uid, f"uid {user.uid}")


def _words(about: Mapping[str, Any]) -> str:
    """An asyncio error on one line."""
    error = about.get("exception")
    return f"{about.get('message', 'an error')}: {error!r}" if error else str(about.get("message"))
