# SPDX-License-Identifier: Apache-2.0
"""What the broker can have done beside loading, each by a child that lives while it works.

The unprivileged side names one of those that the broker was started with, and may give it
descriptors; it cannot send code or arguments. A child imports what it needs while it may read
the files, and becomes the helper's `user`, if it has one, before it does anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from probes import ipc, privileges
from probes.base import ProbeError

PR_SET_PDEATHSIG = 1


class Helper(NamedTuple):
    """A function as "module:function" and the seconds that it may take.

    It is called with the descriptors and returns what can be sent as JSON, or raises ProbeError.
    Before, `prepare` of its module is called, if there is one, with the privileges that it will
    not have if there is a `user`.
    """

    path: str
    seconds: float
    user: privileges.User | None = None


NO_HELPERS: Mapping[str, Helper] = {}
DOCTOR = Helper("probes.doctor:report", 60.0)


class _Child(NamedTuple):
    pid: int
    sock: socket.socket
    request: int
    deadline: float
    seconds: float


class Helpers:
    """The broker's side: at most one child of each helper."""

    def __init__(
        self,
        helpers: Mapping[str, Helper],
        answer: Callable[[ipc.Message], None],
        forget: Callable[[], None],
    ) -> None:
        self._helpers = dict(helpers)
        self._answer = answer
        self._forget = forget
        self._children: dict[str, _Child] = {}

    @property
    def sockets(self) -> list[socket.socket]:
        """Those on which a child may speak."""
        return [child.sock for child in self._children.values()]

    def timeout(self) -> float | None:
        """Seconds until a child has had its time; None without one."""
        deadlines = [child.deadline for child in self._children.values()]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def ask(self, message: ipc.Message, fds: Sequence[int]) -> None:
        """Start what {"id", "name"} asks for; the descriptors stay the caller's."""
        name = message.get("name")
        helper = self._helpers.get(name) if isinstance(name, str) else None
        if helper is None or not isinstance(name, str):
            self._refuse(message["id"], "this cannot be asked for here", "")
        elif name in self._children:
            self._refuse(message["id"], "it is being done for somebody else", "try again later")
        else:
            ours, theirs = ipc.pair()
            pid = os.fork()
            if pid == 0:
                self._be_child(helper, ours, theirs, fds)
            theirs.close()
            deadline = time.monotonic() + helper.seconds
            child = _Child(pid, ours, message["id"], deadline, helper.seconds)
            self._children[name] = child

    def _be_child(
        self, helper: Helper, ours: socket.socket, theirs: socket.socket, fds: Sequence[int]
    ) -> None:
        with contextlib.suppress(BaseException):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            # The dashboard must see EOF when the broker dies, whatever we do.
            self._forget()
            ours.close()
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            ipc.send(theirs, _worked(helper, fds))
        os._exit(0)

    def speak(self, ready: Sequence[socket.socket]) -> None:
        """Pass on what children said, and end those that take too long."""
        now = time.monotonic()
        for name, child in list(self._children.items()):
            if child.sock in ready:
                received = ipc.receive(child.sock)
                self._end(name)
                if received is None:
                    self._refuse(child.request, f"{name} ended without an answer", "ask again")
                else:
                    ipc.close_all(received[1])
                    self._answer({**received[0], "id": child.request})
            elif now >= child.deadline:
                self._end(name)
                why = f"{name} did not end within {child.seconds:g} seconds"
                self._refuse(child.request, why, "try again when the machine is less busy")

    def close(self) -> None:
        """End all children."""
        for name in list(self._children):
            self._end(name)

    def forget(self) -> None:
        """In another child: close what is ours."""
        for sock in self.sockets:
            sock.close()

    def _end(self, name: str) -> None:
        child = self._children.pop(name)
        child.sock.close()
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)

    def _refuse(self, request: int, why: str, fix: str) -> None:
        self._answer({"id": request, "ok": False, "why": why, "fix": fix})


def _worked(helper: Helper, fds: Sequence[int]) -> dict[str, Any]:
    """The answer of a helper, in its own process."""
    try:
        name, _, function = helper.path.partition(":")
        module = import_module(name)
        getattr(module, "prepare", lambda: None)()
        if helper.user is not None:
            privileges.drop(helper.user, writes=False)
        return {"ok": True, "result": getattr(module, function)(list(fds))}
    except ProbeError as error:
        return {"ok": False, "why": error.why, "fix": error.fix}
    except Exception as error:  # a crash is the answer, not silence
        return {
            "ok": False,
            "why": f"it failed: {error!r}"[:500],
            "fix": "try again, and tell its authors",
        }
