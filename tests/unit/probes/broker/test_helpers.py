# SPDX-License-Identifier: Apache-2.0
"""What the broker has done by children: by name alone, one at a time, within their time."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from probes.broker.client import BrokerLink, connected
from probes.broker.jobs import Helper
from probes.broker.server import Broker
from probes.core.errors import ProbeError
from probes.ipc import cpu_pace, packets
from probes.ipc.child_process import Child
from tests.kernel.harness import children_of
from tests.unit.agent import eventually

HERE = __name__


def says(fds: Sequence[int]) -> dict[str, Any]:
    """A helper: writes to what it is given."""
    for fd in fds:
        os.write(fd, b"done")
    return {"pid": os.getpid(), "fds": len(fds)}


def refuses(fds: Sequence[int]) -> None:
    """A helper that knows why not."""
    raise ProbeError("cannot", "do this")


def crashes(fds: Sequence[int]) -> None:
    """A helper with an error in it."""
    raise RuntimeError("oh")


def dies(fds: Sequence[int]) -> None:
    """A helper that is gone."""
    os._exit(3)


def hangs(fds: Sequence[int]) -> None:
    """A helper that never ends."""
    time.sleep(3600)


def lies(fds: Sequence[int]) -> None:
    """A helper that was taken over: it says what is none of its business."""
    os.write(writing_end(), b'{"ok":true,"unit":5,"maps":["a"],"result":1}\n')
    os._exit(0)


def floods(fds: Sequence[int]) -> None:
    """One that says a line without an end, and more than the broker keeps."""
    while True:
        os.write(writing_end(), b"x" * 60_000)


def drips(fds: Sequence[int]) -> None:
    """One that never stops to speak, and never says anything."""
    while True:
        os.write(writing_end(), b"x")


def writing_end() -> int:
    """The pipe through which a helper answers: all that it has beside the standard ones."""
    numbers = sorted(map(int, os.listdir("/proc/self/fd")))
    # The directory that was listed is closed again.
    return next(fd for fd in numbers if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}"))


HELPERS = {
    name: Helper(f"{HERE}:{name}", 20.0) for name in ("says", "refuses", "crashes", "dies", "lies")
} | {
    "drips": Helper(f"{HERE}:drips", 0.5),
    "floods": Helper(f"{HERE}:floods", 0.5),
    "hangs": Helper(f"{HERE}:hangs", 0.2),
    "waits": Helper(f"{HERE}:hangs", 3600.0),
    "missing": Helper(f"{HERE}:nothing", 20.0),
}
Ask = Callable[..., None]
BROKERS = list[Broker]()
"""The one behind the link of the present test."""


@pytest.fixture
def link() -> Iterator[BrokerLink]:
    file = os.memfd_create("x")
    helpers = HELPERS | {"writes": Helper(f"{HERE}:says", 20.0, files=(file,))}
    ours, theirs = connected()
    ours.answers.settimeout(20)
    before, others = len(os.listdir("/proc/self/fd")), set(children_of(os.getpid()))
    broker = Broker(theirs, {}, helpers=helpers)
    BROKERS[:] = [broker]
    thread = threading.Thread(target=broker.serve)
    thread.start()
    yield ours
    ours.answers.shutdown(socket.SHUT_RDWR)
    thread.join(20)
    assert not thread.is_alive()
    # Also those that were at work are gone, and waited for: on a busy machine some time later.
    eventually("their end", lambda: no_children_but(others))
    assert len(os.listdir("/proc/self/fd")) == before
    ours.close()
    theirs.close()
    os.close(file)


def no_children_but(others: set[int]) -> bool:
    """Whether all others have been reaped, by the broker or, of those that took longer, now."""
    Child.reap_all()
    return set(children_of(os.getpid())) <= others


def ask(link: BrokerLink, name: object, request: int = 1) -> None:
    assert link.send({"id": request, "op": "help", "name": name})


def answer(link: BrokerLink) -> dict[str, Any]:
    received = packets.receive(link.answers)
    assert received is not None
    assert not received[1]
    assert isinstance(received[0], dict)
    return received[0]


def test_a_helper_works_in_a_process_of_its_own_on_its_files(link: BrokerLink) -> None:
    ask(link, "writes", 7)
    value = answer(link)
    assert (value["id"], value["ok"], value["result"]["fds"]) == (7, True, 1)
    assert value["result"]["pid"] != os.getpid()
    (file,) = (fd for fd in map(int, os.listdir("/proc/self/fd")) if "memfd:x" in where(fd))
    assert os.pread(file, 10, 0) == b"done"


def where(fd: int) -> str:
    """What a descriptor leads to, "" for one that is gone."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def test_only_what_a_helper_may_answer_is_passed_on(link: BrokerLink) -> None:
    ask(link, "lies", 7)
    assert answer(link) == {"id": 7, "ok": True, "result": 1}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("refuses", "cannot"),
        ("crashes", "it failed: RuntimeError('oh')"),
        ("dies", "dies ended without an answer"),
        ("drips", "drips did not end within 0.5 seconds"),
        ("floods", "floods did not end within 0.5 seconds"),
        ("hangs", "hangs did not end within 0.2 seconds"),
        ("missing", "it failed: AttributeError"),
        ("os:system", "this cannot be asked for here"),
        (None, "the broker does not understand this message"),
        (["says"], "the broker does not understand this message"),
    ],
)
def test_why_not(link: BrokerLink, name: object, why: str) -> None:
    ask(link, name, 3)
    value = answer(link)
    assert (value["id"], value["ok"]) == (3, False)
    assert value["why"].startswith(why)
    ask(link, "says", 4)
    assert answer(link)["ok"]


def test_one_at_a_time_of_each(link: BrokerLink) -> None:
    ask(link, "waits", 1)
    ask(link, "waits", 2)
    value = answer(link)
    assert (value["id"], value["ok"]) == (2, False)
    assert "somebody else" in value["why"]
    ask(link, "says", 3)
    assert answer(link)["id"] == 3


def test_who_asks_for_too_much_is_told_when_to_ask_again(link: BrokerLink) -> None:
    BROKERS[0].helpers._kinds["says"].pace.charge(cpu_pace.BURST + 10.2 * cpu_pace.RATE)
    ask(link, "says", 1)
    value = answer(link)
    assert (value["id"], value["ok"]) == (1, False)
    assert value["why"] == "it was asked for too often"
    assert value["fix"] in ("try again in 10 seconds", "try again in 11 seconds")
    ask(link, "writes", 3)
    assert answer(link)["id"] == 3
