# SPDX-License-Identifier: Apache-2.0
"""The privileged side: answers "load X" with descriptors, and starts a few helpers.

It is a child of the dashboard's process, forked before that gave up its privileges; it
imports neither BCC nor Textual, holds no descriptor of a running probe and ends when the
dashboard does; descriptors that are given back it has closed. Only probes that it was started
with can be asked for, by name: the unprivileged side cannot send it code. Each batch of
requests gets a loader of its own.

The environment variable PROBETOP_LOADER_TIMEOUT (seconds) is the time that a probe may take
to load, for machines far slower than any real one; what is no positive number is ignored.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from probes import bpfsys, ipc, process_start, returns, terminal_state
from probes.closer import Closer
from probes.helpers import NO_HELPERS, Helper, Helpers
from probes.namer import Namer
from probes.searcher import Searcher


def _loader_timeout(default: float = 10.0) -> float:
    try:
        seconds = float(os.environ.get("PROBETOP_LOADER_TIMEOUT", ""))
    except ValueError:
        return default
    return seconds if 0 < seconds < 86400 else default


LOADER_TIMEOUT = _loader_timeout()
"""Seconds that one probe may take to load; idle emulated machines need up to six."""

TIDY_SECONDS = 30.0
"""How long the broker waits for what is in use when the dashboard has gone."""


@dataclass(slots=True)
class Loader:
    """A running loader process and the request that it works on."""

    pid: int
    sock: socket.socket
    log: int
    deadline: float = 0.0
    request: ipc.Message | None = None


class Broker:
    """The request loop; `serve` returns when the dashboard's end of the socket closes."""

    def __init__(
        self,
        sock: socket.socket,
        paths: Mapping[str, str],
        spawn: Callable[..., int] | None = None,
        helpers: Mapping[str, Helper] = NO_HELPERS,
    ) -> None:
        self.sock = sock
        self.paths = dict(paths)
        self.queue: deque[ipc.Message] = deque()
        self.doomed: list[int] = []
        self.loader: Loader | None = None
        self.spawn = spawn or self._fork_loader
        self.searcher = Searcher(self._answer, self._forget)
        self.namer = Namer(self._answer, self._forget)
        self.closer = Closer(self._forget)
        self.helpers = Helpers(helpers, self._answer, self._forget)

    def serve(self) -> None:
        """Answer requests until the dashboard is gone."""
        while True:
            self._next()
            ready = self._wait()
            if self.loader and self.loader.sock in ready:
                self._loader_speaks()
            elif self.loader and self.loader.request and time.monotonic() > self.loader.deadline:
                why = f"the loader did not answer within {LOADER_TIMEOUT:g} seconds"
                self._loader_failed(why, True)
            for helper in (self.searcher, self.namer):
                if helper.sock in ready:
                    helper.speak()
                elif helper.timeout() == 0:
                    helper.close()
            if self.closer.sock in ready:
                self.closer.reap()
            self.helpers.speak(ready)
            if self.sock in ready and not self._dashboard_speaks():
                break
        self._close_doomed()
        self.closer.end()
        self._end_loader(kill=True)
        self.searcher.close(kill=True)
        self.namer.close(kill=True)
        self.helpers.close()
        # The dashboard, or the closer, may still be about to close its descriptors.
        last = time.monotonic() + TIDY_SECONDS
        while not returns.tidy() and time.monotonic() < last:
            time.sleep(0.02)

    def _close_doomed(self) -> None:
        doomed, self.doomed = self.doomed, []
        self.closer.close(doomed)

    def _forget(self) -> None:
        """In a child: who waits for us to close these would wait for it too."""
        self.sock.close()
        helpers = (self.searcher.sock, self.namer.sock, self.closer.sock)
        for sock in (self.loader.sock if self.loader else None, *helpers):
            if sock is not None:
                sock.close()
        self.helpers.forget()
        ipc.close_all(self.doomed)

    def _answer(self, message: ipc.Message) -> None:
        ipc.send(self.sock, message)

    def _wait(self) -> list[socket.socket]:
        sockets = [self.sock]
        timeouts = []
        if self.loader:
            sockets.append(self.loader.sock)
            timeouts.append(max(0.0, self.loader.deadline - time.monotonic()))
        for helper in (self.searcher, self.namer):
            idle = helper.timeout()
            if helper.sock is not None and idle is not None:
                sockets.append(helper.sock)
                timeouts.append(idle)
        if self.closer.sock is not None:
            sockets.append(self.closer.sock)
        sockets += self.helpers.sockets
        helping = self.helpers.timeout()
        if helping is not None:
            timeouts.append(helping)
        ready, _, _ = select.select(sockets, [], [], min(timeouts, default=None))
        return ready

    def _dashboard_speaks(self) -> bool:
        received = ipc.receive(self.sock)
        if received is None:
            return False
        message, fds = received
        if message.get("op") == "close":
            # Detaching waits for the kernel. Who closes last waits: that is to be us.
            self.doomed += fds
            return True
        if message.get("op") == "help":
            self.helpers.ask(message, fds)
        ipc.close_all(fds)
        if message.get("op") == "closed":
            self._close_doomed()
        elif message.get("op") == "stats":
            self._stats(message)
        elif message.get("op") == "search":
            self.searcher.ask(message)
        elif message.get("op") == "names":
            self.namer.ask(message)
        elif message.get("op") == "help":
            pass
        elif message.get("probe") in self.paths:
            # Who asks again for a probe does not want what was asked for before.
            older = [m for m in self.queue if m["probe"] != message["probe"]]
            self.queue = deque([*older, message])
        else:
            self._refuse(message, f"there is no probe {message.get('probe')!r}", "")
        return True

    def _stats(self, message: ipc.Message) -> None:
        try:
            fd = bpfsys.enable_stats()
        except OSError as error:
            self._refuse(message, f"the kernel measures no run times ({error.strerror})", "")
            return
        ipc.send(self.sock, {"id": message["id"], "ok": True}, [fd])
        os.close(fd)

    def _refuse(self, message: ipc.Message, why: str, fix: str, log: str = "") -> None:
        answer = {"ok": False, "why": why, "fix": fix, "log": log}
        ipc.send(self.sock, {"id": message.get("id"), **answer})

    def _next(self) -> None:
        """Give the loader its next request, starting or ending it as needed."""
        if self.loader and self.loader.request:
            return
        if not self.queue:
            self._end_loader()
            return
        if self.loader is None:
            self.loader = self._start_loader()
        request = self.queue.popleft()
        self.loader.request = request
        self.loader.deadline = time.monotonic() + LOADER_TIMEOUT
        path = self.paths[request["probe"]]
        body = {"id": request["id"], "path": path, "params": request.get("params", {})}
        ipc.send(self.loader.sock, body)

    def _loader_speaks(self) -> None:
        assert self.loader is not None
        received = ipc.receive(self.loader.sock)
        if received is None:
            self._loader_failed("the loader ended without an answer", False)
            return
        message, fds = received
        self.loader.request = None
        ipc.send(self.sock, message, fds)
        ipc.close_all(fds)
        # What was measured with, or did not attach, is not in use any more.
        returns.tidy()

    def _loader_failed(self, why: str, kill: bool) -> None:
        loader = self.loader
        assert loader is not None
        from probes.loader import printed

        log = printed(loader.log)
        request = loader.request
        status = self._end_loader(kill)
        if not kill and status is not None and os.WIFSIGNALED(status):
            why = f"the loader was ended by {signal.Signals(os.WTERMSIG(status)).name}"
        if request:
            fix = "switch the probe on again; if it stays so, run probetop doctor"
            self._refuse(request, why, fix, log)

    def _start_loader(self) -> Loader:
        ours, theirs = ipc.pair()
        log = os.memfd_create("probetop-loader")
        pid = self.spawn(ours, theirs, log)
        theirs.close()
        return Loader(pid, ours, log)

    def _fork_loader(self, ours: socket.socket, theirs: socket.socket, log: int) -> int:
        pid = os.fork()
        if pid == 0:
            status = 1
            with contextlib.suppress(BaseException):
                # The dashboard's end must see EOF when the broker dies, whatever we do.
                self._forget()
                ours.close()
                from probes import loader

                loader.run(theirs, log)
                status = 0
            os._exit(status)
        return pid

    def _end_loader(self, kill: bool = False) -> int | None:
        """Close the loader's socket, at which it ends; its wait status."""
        loader, self.loader = self.loader, None
        if loader is None:
            return None
        loader.sock.close()
        if kill:
            os.kill(loader.pid, signal.SIGKILL)
        _, status = os.waitpid(loader.pid, 0)
        os.close(loader.log)
        return status


def run(
    sock: socket.socket, paths: Mapping[str, str], parent: int, helpers: Mapping[str, Helper]
) -> NoReturn:
    """The broker's process, from fork to end. Never returns."""
    status = 1
    try:
        # Ctrl+C and ctrl+Z are the dashboard's; its end, however it comes, is ours.
        for number in (signal.SIGINT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        process_start.keep_privileges()
        saved = terminal_state.remember()
        Broker(sock, paths, helpers=helpers).serve()
        terminal_state.restore(saved, parent)
        status = 0
    finally:
        # Whatever went wrong, the dashboard sees the socket close and says so.
        os._exit(status)


def fork(
    paths: Mapping[str, str], helpers: Mapping[str, Helper] = NO_HELPERS
) -> tuple[int, socket.socket]:
    """Start the broker as a child: its process id and the socket to it."""
    ours, theirs = ipc.pair()
    terminal_state.share()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        run(theirs, paths, parent, helpers)
    theirs.close()
    return pid, ours


__all__ = ["LOADER_TIMEOUT", "Broker", "fork"]
