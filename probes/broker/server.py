# SPDX-License-Identifier: Apache-2.0
"""The privileged side: answers "load X" with maps, and starts a few helpers.

It is a child of the dashboard's process, forked before that gave up its privileges; it
imports neither BCC nor Textual and ends when the dashboard does. It keeps what a loader made,
programs and links: whoever holds a program's descriptor can attach it to anything, so none of
them ever leaves it. When it ends, however that comes, the kernel detaches everything.

Only probes that it was started with can be asked for, by name: the unprivileged side cannot send
it code, nor descriptors. What that side sends may be anything; `probes.ipc.messages` decodes it,
and what is wrong is answered. Each batch of requests gets a loader of its own. Nothing here waits
for the unprivileged side: it may end, stop, or leave its answers unread.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from probes.bpf.map_memory import NoRoomError
from probes.broker.burst_timer import Bursts
from probes.broker.client import BrokerEnd, BrokerLink, connected
from probes.broker.fd_closer import Closer
from probes.broker.jobs import NO_HELPERS, Helper, Helpers
from probes.broker.long_bursts import LongBursts
from probes.broker.runtime_worker import Namer
from probes.broker.search_worker import Searcher
from probes.broker.units import Units
from probes.host import file_access, process_start, terminal_state
from probes.host.file_access import OWN_RIGHTS
from probes.host.load_time import LOADER_TIMEOUT, MOST_WAITED, waited_for_cpu
from probes.ipc import child_process as child
from probes.ipc import messages, packets
from probes.ipc.child_process import Child, Kind, Limits
from probes.ipc.cpu_pace import Pace
from probes.ipc.messages import Load, LoadAnswer, MessageError
from probes.ipc.outbox import Outbox, UnreadError

PACKET_SECONDS = 0.5
"""How long the loader may take for the next packet of an answer that it has begun."""
MAKE_ROOM = "switch probes off, or remove targets"
NOTHING_FIXED: Mapping[str, Mapping[str, Any]] = {}
LOADER_LIMITS = Limits(memory=4 << 30, cpu=60)
"""LLVM reserves far more address space than it uses."""


@dataclass(slots=True)
class Loader:
    """A running loader process and the request that it works on."""

    child: Child[socket.socket]
    log: int
    deadline: float = 0.0
    begun: float = 0.0
    waited: float = 0.0
    request: Load | None = None

    def begin(self, request: Load) -> None:
        """Note when a request is to be done."""
        self.request, self.begun = request, time.monotonic()
        self.waited = waited_for_cpu(self.child.pid)
        self.deadline = self.begun + LOADER_TIMEOUT

    def is_late(self) -> bool:
        """Whether the request takes too long, beside what it waited for a CPU meanwhile."""
        if self.request is None or time.monotonic() <= self.deadline:
            return False
        waited = max(0.0, waited_for_cpu(self.child.pid) - self.waited)
        self.deadline = self.begun + LOADER_TIMEOUT + min(waited, MOST_WAITED)
        return time.monotonic() > self.deadline


class Broker:
    """The request loop; `serve` returns when the dashboard's end of it closes."""

    def __init__(
        self,
        end: BrokerEnd,
        paths: Mapping[str, str],
        spawn: Callable[[int], Child[socket.socket]] | None = None,
        helpers: Mapping[str, Helper] = NO_HELPERS,
        parent: int | None = None,
        fixed: Mapping[str, Mapping[str, Any]] = NOTHING_FIXED,
    ) -> None:
        """`parent` is a pidfd of the dashboard, at whose end the broker ends as well.

        `fixed` are parameters by probe that hold whatever is asked for.
        """
        self.requests = end.requests
        self.sock = end.answers
        self.outbox = Outbox(end.answers)
        self.parent = parent
        self.paths = dict(paths)
        self.fixed = fixed
        self.queue: deque[Load] = deque()
        self.loader: Loader | None = None
        self.spawn = spawn or _fork_loader
        # What one probe's targets hold up keeps no other probe from being loaded.
        self.pace = Pace()
        self.kinds: dict[str, Kind] = {}
        self.searcher = Searcher(self._answer)
        self.namer = Namer(self._answer)
        self.closer = Closer()
        self.units = Units(self.closer.close)
        self.bursts = Bursts(self.units, self._report)
        self.long_bursts = LongBursts(self.units, self._report)
        self.helpers = Helpers(helpers, self._answer)

    def serve(self) -> None:
        """Answer requests until the dashboard is gone; raises UnreadError if it does not read."""
        try:
            while True:
                self._next()
                ready = self._wait()
                if self._is_alone(ready):
                    break
                self._children_speak(ready)
                self.outbox.flush()
                if self.requests.fileno() in ready and not self.requests.read():
                    break
                if self.requests.whole:
                    self._dashboard_speaks()
                self.long_bursts.run(ready)
        finally:
            self._end_loader(kill=True)
            self.long_bursts.close()
            # The closer's child does the waiting: it outlives this process by a moment.
            self.units.close()
            self.searcher.close()
            self.namer.close()
            self.helpers.close()
            self.outbox.close()

    def _is_alone(self, ready: Mapping[int, int]) -> bool:
        """Whether the dashboard has ended, or closed its socket."""
        # Somebody else may hold what it had open.
        if self.parent is not None and self.parent in ready:
            return True
        return bool(ready.get(self.sock.fileno(), 0) & (select.POLLHUP | select.POLLERR))

    def _children_speak(self, ready: Collection[int]) -> None:
        """Take in what children say, and end those that take too long."""
        loader = self.loader
        if loader and loader.child.ours.fileno() in ready:
            self._loader_speaks(loader)
        elif loader and loader.is_late():
            why = f"the loader did not answer within {LOADER_TIMEOUT:g} seconds"
            self._loader_failed(loader, why, True)
        for worker in (self.searcher, self.namer):
            worker.speak(ready)
        self.helpers.speak(ready)
        self.closer.reap()
        Child.reap_all()

    def _answer(self, message: packets.Message, fds: Sequence[int] = ()) -> bool:
        """Send an answer, and its descriptors away; False if it is too large."""
        try:
            self.outbox.put(message, fds)
        except (ValueError, RecursionError):
            self._refuse(message.get("id"), "the answer is too large", "ask for less")
            return False
        return True

    def _wait(self) -> dict[int, int]:
        """By descriptor what poll(2) says of it, once something is to be done."""
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT if self.outbox.waiting else 0)
        if self.parent is not None:
            poll.register(self.parent, select.POLLIN)
        timeouts = []
        if self.requests.whole:
            timeouts.append(0.0)
        else:
            poll.register(self.requests, select.POLLIN)
        if self.queue and not (self.loader and self.loader.request):
            timeouts.append(self.pace.delay())
        if self.loader:
            poll.register(self.loader.child.ours, select.POLLIN)
            if self.loader.request:
                timeouts.append(max(0.0, self.loader.deadline - time.monotonic()))
        for worker in (self.searcher, self.namer, self.helpers):
            for source in worker.sources:
                poll.register(source, select.POLLIN)
            timeout = worker.timeout()
            if timeout is not None:
                timeouts.append(timeout)
        for fd in self.long_bursts.sources:
            poll.register(fd, select.POLLIN)
        switches = (self.bursts.timeout(), self.long_bursts.timeout())
        timeouts += [switch for switch in switches if switch is not None]
        shortest = min(timeouts, default=None)
        # A millisecond more, or what is due in less than one would be waited for in vain.
        wait = None if shortest is None else 1000 * shortest + (shortest > 0)
        return dict(self.bursts.wait(poll, wait))

    def _dashboard_speaks(self) -> None:
        """Take in one request."""
        data: object = None
        try:
            data = self.requests.take()
            self._do(messages.request(data))
        except MessageError as error:
            why = f"the broker does not understand this message: {error}"
            self._refuse(messages.id_of(data), why, "probetop is broken or attacked: restart it")
        except (ValueError, RecursionError):
            why = "what is asked for is too large"
            self._refuse(messages.id_of(data), why, "ask for less at once")
        except OSError as error:  # no process, no descriptor, no memory
            why = f"the broker cannot do this now ({error.strerror})"
            self._refuse(messages.id_of(data), why, "raise ulimit -n and -u, or free memory")

    def _do(self, request: messages.AnyRequest) -> None:
        match request:
            case messages.Load():
                self._load(request)
            case messages.Detach():
                self.bursts.forget(request.unit, request.groups)
                self.long_bursts.forget(request.unit, request.groups)
                self.units.detach(request.unit, request.groups)
            case messages.Burst():
                if not self.long_bursts.ask(request):
                    self.bursts.ask(request)
            case messages.Taken():
                self.bursts.taken(request)
                self.long_bursts.taken(request)
            case messages.Runs():
                self._answer({"id": request.id, "ok": True, "runs": self.units.runs()})
            case messages.Measure():
                self.units.measure(request.on)
                self._answer({"id": request.id, "ok": True, "runs": self.units.runs()})
                if not request.on:
                    self.units.measure_no_more()
            case messages.Search():
                self.searcher.ask(request.id, request.query)
            case messages.Names():
                self.namer.ask(request.id, request.ids)
            case messages.Help():
                self.helpers.ask(request.id, request.name)

    def _report(self, report: messages.BurstReport) -> None:
        """Tell the dashboard of a burst."""
        self._answer({"id": None, "ok": True, "burst": messages.listed(report)})

    def _load(self, request: Load) -> None:
        if request.probe not in self.paths:
            self._refuse(request.id, f"there is no probe {request.probe!r}", "")
            return
        # Who asks again for a probe does not want what was asked for before.
        older = [one for one in self.queue if one.probe != request.probe]
        self.queue = deque([*older, request])

    def _refuse(self, request: int | None, why: str, fix: str, log: str = "") -> None:
        self._answer({"id": request, "ok": False, "why": why, "fix": fix, "log": log})

    def _next(self) -> None:
        """Give the loader its next request, starting or ending it as needed."""
        if self.loader and self.loader.request:
            return
        if not self.queue:
            self._end_loader()
            return
        if self.pace.delay() > 0:
            self._end_loader()
            return
        request = self.queue.popleft()
        try:
            self.units.check_room()
            self._have_loader(self.kinds.setdefault(request.probe, Kind(self.pace)))
        except OSError as error:
            why = f"no loader can be started ({error.strerror})"
            self._refuse(request.id, why, "free memory, processes or descriptors, and try again")
            return
        except NoRoomError as error:
            self._refuse(request.id, str(error), MAKE_ROOM)
            return
        assert self.loader is not None
        self.loader.begin(request)
        params = {**request.params, **self.fixed.get(request.probe, {})}
        body = {"id": request.id, "path": self.paths[request.probe], "params": params}
        self.loader.child.ours.settimeout(PACKET_SECONDS)
        try:
            packets.send(self.loader.child.ours, body)
        except (ValueError, RecursionError):
            # JSON of ours escapes what came as UTF-8, and is up to six times as long.
            self.loader.request = None
            self._refuse(request.id, "what is asked for is too large", "ask for less at once")
        except TimeoutError:
            self._loader_failed(self.loader, "the loader does not listen", True)

    def _have_loader(self, kind: Kind) -> None:
        """Have a loader that works for a kind; raises OSError if none can be started."""
        kind.check()
        if self.loader is None:
            log = os.memfd_create("probetop-loader")
            try:
                self.loader = Loader(self.spawn(log), log)
            except OSError:
                os.close(log)
                raise
        self.loader.child.kind = kind
        self.loader.child.begin()

    def _loader_speaks(self, loader: Loader) -> None:
        loader.child.charge()
        try:
            received = packets.receive(loader.child.ours)
        except MessageError as error:
            self._loader_failed(loader, f"the loader's answer is wrong: {error}", True)
            return
        except TimeoutError:
            self._loader_failed(loader, "the loader stopped within its answer", True)
            return
        if received is None:
            self._loader_failed(loader, "the loader ended without an answer", False)
            return
        data, fds = received
        try:
            answer = messages.convert(data, LoadAnswer)
            shown = self.units.adopt(answer, fds)
        except NoRoomError as error:
            self.closer.close(fds)
            loader.request = None
            self._refuse(answer.id, str(error), MAKE_ROOM)
            return
        except MessageError as error:
            self.closer.close(fds)
            self._loader_failed(loader, f"the loader's answer is wrong: {error}", True)
            return
        loader.request = None
        if not self._answer(messages.told(answer), shown):
            self.units.detach(answer.unit, None)

    def _loader_failed(self, loader: Loader, why: str, kill: bool) -> None:
        from probes.bpf.compiler import printed

        log = printed(loader.log)
        request = loader.request
        status = self._end_loader(kill)
        if not kill and status is not None and os.WIFSIGNALED(status):
            why = f"the loader was ended by {signal.Signals(os.WTERMSIG(status)).name}"
        if request:
            fix = "switch the probe on again; if it stays so, run probetop doctor"
            self._refuse(request.id, why, fix, log)

    def _end_loader(self, kill: bool = False) -> int | None:
        """Close the loader's socket, at which it ends; its wait status."""
        loader, self.loader = self.loader, None
        if loader is None:
            return None
        os.close(loader.log)
        return loader.child.end() if kill else loader.child.ended(child.GRACE)


def _fork_loader(log: int) -> Child[socket.socket]:
    def work(sock: socket.socket) -> None:
        from probes.bpf import compiler as loader

        loader.run(sock, log)

    return child.start(work, LOADER_LIMITS, keep=[log], quiet=False)


def run(make: Callable[[int], Broker], end: BrokerEnd, parent: int) -> NoReturn:
    """The broker's process, from fork to end; `make` is given a pidfd of `parent`."""
    status = 1
    try:
        # Ctrl+C and ctrl+Z are the dashboard's; its end, however it comes, is ours.
        for number in (signal.SIGINT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        process_start.keep_privileges()
        saved = terminal_state.remember()
        watched = os.pidfd_open(parent)
        if os.getppid() == parent:
            make(watched).serve()
        terminal_state.restore(saved, parent)
        status = 0
    except Exception as error:
        why = f"the broker failed: {error!r}"[:500]
        if isinstance(error, UnreadError):
            why = f"the privileged helper has ended: {error}"
        with contextlib.suppress(Exception):
            log = traceback.format_exc()
            Outbox(end.answers).last({"id": None, "ok": False, "why": why, "log": log})
    finally:
        # Whatever went wrong, the dashboard sees the socket close and says so.
        os._exit(status)


def fork(
    paths: Mapping[str, str],
    helpers: Mapping[str, Helper] = NO_HELPERS,
    asker: file_access.Asker = OWN_RIGHTS,
    fixed: Mapping[str, Mapping[str, Any]] = NOTHING_FIXED,
) -> tuple[int, BrokerLink]:
    """Start the broker as a child: its process id and what connects to it.

    `asker` says with whose rights it and its children look files up, `fixed` are parameters of
    probes that hold whatever is asked for; no message can change either.
    """
    link, end = connected()
    terminal_state.share()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        link.close()
        file_access.set_asker(asker)
        run(
            lambda watched: Broker(end, paths, helpers=helpers, parent=watched, fixed=fixed),
            end,
            parent,
        )
    end.close()
    return pid, link


__all__ = ["LOADER_TIMEOUT", "NOTHING_FIXED", "Broker", "fork"]
