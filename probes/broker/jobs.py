# SPDX-License-Identifier: Apache-2.0
"""What the broker can have done beside loading, each by a child that lives while it works.

The unprivileged side names one of those that the broker was started with; it cannot send code,
arguments or descriptors. A child imports what it needs while it may read the files, and becomes
the helper's `user`, if it has one, before it does anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import import_module
from math import ceil
from typing import Any, NamedTuple

from probes.core.errors import ProbeError
from probes.host import privileges
from probes.ipc import child_process as child
from probes.ipc import packets, pipe
from probes.ipc.child_process import Child, Kind, Limits


class Helper(NamedTuple):
    """A function as "module:function" and the seconds that it may take.

    It is called with the `files`, descriptors that are open when the broker is started, and returns
    what can be sent as JSON, or raises ProbeError. Before, `prepare` of its module is called, if
    there is one, with the privileges that it will not have if there is a `user`.
    """

    path: str
    seconds: float
    user: privileges.User | None = None
    limits: Limits = Limits(memory=4 << 30, cpu=60)
    files: tuple[int, ...] = ()


NO_HELPERS: Mapping[str, Helper] = {}
DOCTOR = Helper("probes.doctor.report:report", 60.0)
FIELDS = ("ok", "why", "fix", "result")
"""Of what a helper answers, what is passed on."""


class _Working(NamedTuple):
    child: Child[pipe.Reader]
    request: int
    deadline: float
    seconds: float


class Helpers:
    """The broker's side: at most one child of each helper."""

    def __init__(
        self, helpers: Mapping[str, Helper], answer: Callable[[packets.Message], object]
    ) -> None:
        self._helpers = dict(helpers)
        self._answer = answer
        self._working: dict[str, _Working] = {}
        self._kinds = {name: Kind() for name in helpers}

    @property
    def sources(self) -> list[pipe.Reader]:
        """Those on which a child may speak."""
        return [one.child.ours for one in self._working.values()]

    def timeout(self) -> float | None:
        """Seconds until a child has had its time; None without one."""
        deadlines = [one.deadline for one in self._working.values()]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def ask(self, number: int, name: str) -> None:
        """Start a helper for request `number`; raises OSError if it cannot be started."""
        helper = self._helpers.get(name)
        if helper is None:
            self._refuse(number, "this cannot be asked for here", "")
        elif name in self._working:
            self._refuse(number, "it is being done for somebody else", "try again later")
        elif (delay := self._kinds[name].pace.delay()) > 0:
            fix = f"try again in {ceil(delay)} seconds"
            self._refuse(number, "it was asked for too often", fix)
        else:
            work, kind = partial(_worked, helper), self._kinds[name]
            started = child.start_untrusted(work, helper.limits, helper.files, kind)
            deadline = time.monotonic() + helper.seconds
            self._working[name] = _Working(started, number, deadline, helper.seconds)

    def speak(self, ready: Collection[int]) -> None:
        """Pass on what children said, and end those that take too long."""
        now = time.monotonic()
        for name, one in list(self._working.items()):
            said = one.child.ours
            ended = said.fileno() in ready and not said.read()
            if ended or said.whole:
                answer = _heard(said)
                self._end(name)
                if answer is None:
                    self._refuse(one.request, f"{name} ended without an answer", "ask again")
                else:
                    self._answer({**answer, "id": one.request})
            elif now >= one.deadline:
                self._end(name)
                why = f"{name} did not end within {one.seconds:g} seconds"
                self._refuse(one.request, why, "try again when the machine is less busy")

    def close(self) -> None:
        """End all children."""
        for name in list(self._working):
            self._end(name)

    def _end(self, name: str) -> None:
        self._working.pop(name).child.end()

    def _refuse(self, request: int, why: str, fix: str) -> None:
        self._answer({"id": request, "ok": False, "why": why, "fix": fix})


def _heard(said: pipe.Reader) -> packets.Message | None:
    """What a child says, None if that is no answer."""
    try:
        answer = said.take() if said.whole else None
    except packets.MessageError:
        return None
    if not isinstance(answer, dict):
        return None
    return {field: answer[field] for field in FIELDS if field in answer}


def _worked(helper: Helper) -> dict[str, Any]:
    """The answer of a helper, in its own process."""
    try:
        name, _, function = helper.path.partition(":")
        module = import_module(name)
        getattr(module, "prepare", lambda: None)()
        if helper.user is not None:
            privileges.drop(helper.user, writes=False)
        return {"ok": True, "result": getattr(module, function)(list(helper.files))}
    except ProbeError as error:
        return {"ok": False, "why": error.why, "fix": error.fix}
    except Exception as error:  # a crash is the answer, not silence
        return {
            "ok": False,
            "why": f"it failed: {error!r}"[:500],
            "fix": "try again, and tell its authors",
        }
