# SPDX-License-Identifier: Apache-2.0
"""Plays a hostile local user, uid 65534, against a probetop that root runs.

`python -m tests.security.attack` as root prints one line for each attack and exits with 1 if any
gained something; `tests/security/test_attack.py` runs the same as tests. Attacks of
`with_socket` have all that a compromised dashboard has: the broker's socket, and what it is
handed. Those of `without_socket` have an account on the machine, and nothing else.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from probes import broker, file_access, ipc, privileges
from tests.security.prey import Prey
from tui.registry import REGISTRY


class Attack(NamedTuple):
    """`run` returns what it gained, "" for nothing; it is called as nobody."""

    name: str
    run: Callable[[Any], str]


class Compromised:
    """The broker's socket in the hands of somebody who sends anything."""

    def __init__(self, sock: socket.socket, prey: Prey, broker_pid: int) -> None:
        self.sock, self.prey, self.broker_pid = sock, prey, broker_pid
        self._number = 0

    def ask(self, **message: Any) -> tuple[dict[str, Any], list[int]]:
        """The answer to one message, with the descriptors that came."""
        self._number += 1
        assert ipc.send(self.sock, {"id": self._number, **message}), "the broker is gone"
        while True:
            received = ipc.receive(self.sock)
            assert received is not None, "the broker is gone"
            answer, fds = received
            assert isinstance(answer, dict)
            if answer.get("id") == self._number:
                return answer, fds
            ipc.close_all(fds)

    def load(self, *targets: str, **more: Any) -> dict[str, Any]:
        """What the broker answers when targets are asked for; what it hands over is closed."""
        params = {"targets": list(targets), **more}
        answer, fds = self.ask(op="load", probe="latency", params=params)
        ipc.close_all(fds)
        if answer.get("unit"):
            ipc.send(self.sock, {"id": 0, "op": "detach", "unit": answer["unit"]})
        return answer

    def alive(self) -> str:
        """ "" if the broker still does its work."""
        answer = self.load("runq")
        return "" if answer["ok"] and answer["facts"]["targets"] else f"it works no more: {answer}"


@contextmanager
def compromised(prey: Prey) -> Iterator[Compromised]:
    """A broker as root's agent has it, whose clients may ask for what everybody can read."""
    paths = {entry.name: entry.probe_path for entry in REGISTRY}
    pid, sock = broker.fork(paths, asker=file_access.for_clients())
    sock.settimeout(60)
    try:
        yield Compromised(sock, prey, pid)
    finally:
        sock.close()
        os.waitpid(pid, 0)


def as_nobody(work: Callable[[], str], confined: bool, uid: int = 65534) -> str:
    """What `work` returns as this uid; `confined` as the unprivileged side is."""
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
    from tests.security import accomplice, with_socket, without_socket

    gained = 0
    with Prey() as prey:
        for attack in with_socket.ATTACKS:
            with compromised(prey) as stolen:
                said = as_nobody(lambda a=attack, s=stolen: a.run(s), confined=False)  # type: ignore[misc]
            gained += _tell("with the broker's socket", attack.name, said)
        for attack in without_socket.ATTACKS:
            said = as_nobody(lambda a=attack: a.run(prey), attack.name.startswith("confined"))  # type: ignore[misc]
            gained += _tell("without", attack.name, said)
        for uid in accomplice.UIDS:
            gained += _tell(f"confined, uid {uid}", "the terminal", accomplice.takes(uid, True))
            for attack in accomplice.ATTACKS:
                said = as_nobody(lambda a=attack: a.run(prey), True, uid)  # type: ignore[misc]
                gained += _tell(f"confined, uid {uid}", attack.name, said)
        with without_socket.served(prey) as agent:
            for attack in without_socket.AGENT_ATTACKS:
                said = as_nobody(lambda a=attack: a.run(agent), confined=False)  # type: ignore[misc]
                gained += _tell("the agent's socket", attack.name, said)
    print(f"{gained} attacks gained something" if gained else "nothing gained")
    return 1 if gained else 0


def _tell(means: str, name: str, said: str) -> int:
    print(f"{'GAINED' if said else 'held  '}  {means}: {name}{': ' if said else ''}{said}")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
