# SPDX-License-Identifier: Apache-2.0
"""Plays hostile local users against a probetop that root runs: nobody, and one with an account.

`python -m tests.security.attack` as root prints one line for each attack and exits with 1 if any
gained something; `tests/security/test_attack.py` runs the same as tests. Attacks of
`with_socket` have all that a compromised dashboard has: the broker's socket, and what it is
handed. Those of `without_socket` have an account on the machine, and nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import pytest

from probes.bpf import map_memory
from probes.broker import server as broker
from probes.broker.client import BrokerLink
from probes.host import file_access, privileges
from probes.ipc import packets
from tests.kernel.harness import eventually
from tests.security.prey import Prey
from tui.registry import REGISTRY

UIDS = (65534, 4711)
"""The kernel treats the first one, its overflow uid, unlike others here and there."""
HIDDEN = {"execs": {"args": False}}
MOST_MEMORY = 64 << 20
"""Bytes of maps that the broker allows here: less than to users, for the test to be short."""


class Attack(NamedTuple):
    """`run` returns what it gained, "" for nothing; it is called as the hostile user."""

    name: str
    run: Callable[[Any], str]


class Compromised:
    """The link to the broker in the hands of somebody who sends anything."""

    def __init__(self, link: BrokerLink, prey: Prey, broker_pid: int) -> None:
        self.link, self.prey, self.broker_pid = link, prey, broker_pid
        self._number = 0

    def ask(self, **message: Any) -> tuple[dict[str, Any], list[int]]:
        """The answer to one message, with the descriptors that came."""
        self._number += 1
        assert self.link.send({"id": self._number, **message}), "the broker is gone"
        while True:
            received = packets.receive(self.link.answers)
            assert received is not None, "the broker is gone"
            answer, fds = received
            assert isinstance(answer, dict)
            if answer.get("id") == self._number:
                return answer, fds
            packets.close_all(fds)

    def load(self, *targets: str, **more: Any) -> dict[str, Any]:
        """What the broker answers when targets are asked for; what it hands over is closed."""
        params = {"targets": list(targets), **more}
        answer, fds = self.ask(op="load", probe="latency", params=params)
        packets.close_all(fds)
        if answer.get("unit"):
            self.link.send({"id": 0, "op": "detach", "unit": answer["unit"]})
        return answer

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.link.requests, view) :]

    def alive(self) -> str:
        """ "" if the broker still does its work."""
        answer = self.load("runq")
        return "" if answer["ok"] and answer["facts"]["targets"] else f"it works no more: {answer}"


@contextmanager
def compromised(prey: Prey) -> Iterator[Compromised]:
    """A broker as root's agent has it, whose clients may ask for what everybody can read.

    It was started with --no-args. It has to end by itself.
    """
    paths = {entry.name: entry.probe_path for entry in REGISTRY}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(map_memory, "most", lambda: MOST_MEMORY)
        pid, link = broker.fork(paths, asker=file_access.for_clients(), fixed=HIDDEN)
    link.answers.settimeout(60)
    try:
        yield Compromised(link, prey, pid)
    finally:
        link.close()
        try:
            eventually("the broker has ended", lambda: os.waitpid(pid, os.WNOHANG)[0])
        except AssertionError:
            os.kill(pid, signal.SIGKILL)
            raise


def as_user(uid: int, work: Callable[[], str], confined: bool) -> str:
    """What `work` returns as this user; `confined` as the unprivileged side is."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "it ended without a word"
        with suppress(BaseException):
            os.close(reading)
            try:
                if confined:
                    privileges.drop(privileges.User(uid, uid, None), writes=False)
                else:
                    os.setgroups([])
                    os.setresgid(uid, uid, uid)
                    os.setresuid(uid, uid, uid)
                said = work()
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(writing, said.encode("utf-8", "replace")[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def main() -> int:
    """Run everything, one line each."""
    gained = sum(map(_attacks, UIDS))
    print(f"{gained} attacks gained something" if gained else "nothing gained")
    return 1 if gained else 0


def _attacks(uid: int) -> int:
    """How many attacks of a user gained something."""
    from tests.security import accomplice, with_socket, without_socket

    gained = 0

    def play(means: str, attack: Attack, victim: Any, confined: bool = False) -> None:
        tell(means, attack.name, as_user(uid, lambda: attack.run(victim), confined))

    def tell(means: str, name: str, said: str) -> None:
        nonlocal gained
        what = f"uid {uid}, {means}: {name}"
        print(f"GAINED  {what}: {said}" if said else f"held    {what}")
        gained += bool(said)

    with Prey(uid) as prey:
        for attack in with_socket.ATTACKS:
            with compromised(prey) as stolen:
                play("with the broker's socket", attack, stolen)
        for attack in without_socket.ATTACKS:
            play("without", attack, prey, confined=True)
        tell("with an accomplice", "the terminal", accomplice.takes(uid, confined=True))
        for attack in accomplice.ATTACKS:
            play("with an accomplice", attack, prey, confined=True)
        with without_socket.served(prey) as agent:
            for attack in without_socket.AGENT_ATTACKS:
                play("the agent's socket", attack, agent)
    return gained


if __name__ == "__main__":
    sys.exit(main())
