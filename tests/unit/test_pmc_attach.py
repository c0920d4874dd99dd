# SPDX-License-Identifier: Apache-2.0
"""Tracepoints by their types, and timers that a map keeps, without a kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from probes import bpfsys
from probes.attach import Attacher
from probes.base import Attach, ProbeError
from probes.made import Made

RETURN = bpfsys.RETURN_0


class Played:
    """bpf(2) and perf_event_open(2): what was asked, and descriptors as answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[tuple[str, object]] = []
        self.fds: list[int] = []
        for name in ("prog_load", "raw_tracepoint_open", "perf_event_open", "perf_set_bpf"):
            monkeypatch.setattr(bpfsys, name, getattr(self, name))
        monkeypatch.setattr(bpfsys, "perf_enable", lambda event: None)
        monkeypatch.setattr(bpfsys, "map_update", self.map_update)

    def fd(self) -> int:
        self.fds.append(os.memfd_create("played"))
        return self.fds[-1]

    def prog_load(self, kind: int, code: bytes, **settings: object) -> int:
        assert code == RETURN
        self.said.append(("load", (kind, settings["attach_type"], settings["btf_id"])))
        return self.fd()

    def raw_tracepoint_open(self, program: int, name: str | None) -> int:
        self.said.append(("open", name))
        return self.fd()

    def perf_event_open(self, kind: int, config: int, **settings: int) -> int:
        self.said.append(("event", (kind, config, settings)))
        return self.fd()

    def perf_set_bpf(self, event: int, program: int) -> None:
        self.said.append(("set", (event, program)))

    def map_update(self, fd: int, key: int, value: int) -> None:
        os.fstat(value)
        self.said.append(("keep", (fd, key)))


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    made = Played(monkeypatch)
    yield made
    for fd in made.fds:
        try:
            os.close(fd)
        except OSError:
            continue


def attacher(known: dict[str, int]) -> Attacher:
    return Attacher(lambda name: RETURN, known.get)


def test_a_btf_tracepoint_is_loaded_for_its_type(played: Played) -> None:
    wish = Attach(kind="btf_tracepoint", function="on_switch", target="sched_switch")
    attacher({"btf_trace_sched_switch": 42}).attach(wish)
    assert played.said == [("load", (bpfsys.PROG_TRACING, 23, 42)), ("open", None)]
    with pytest.raises(ProbeError, match="types have no tracepoint sched_switch"):
        attacher({"sched_switch": 1}).attach(wish)


def test_timers_share_a_program_and_are_kept_by_a_map(played: Played) -> None:
    wishes = [
        Attach(kind="timer", function="on_tick", cpu=cpu, period=5000, keeper=("counters", 8 + cpu))
        for cpu in (0, 3)
    ]
    loaded, made = Made({}, {"counters": 77}), attacher({})
    loaded.attach_all(wishes, made)
    assert (loaded.links, loaded.groups) == ([], [])
    assert len(made.programs) == 1
    events = [what for kind, what in played.said if kind == "event"]
    clock = (bpfsys.PERF_SOFTWARE, bpfsys.PERF_CPU_CLOCK)
    assert events == [(*clock, {"cpu": cpu, "period": 5000}) for cpu in (0, 3)]
    assert [what for kind, what in played.said if kind == "keep"] == [(77, 8), (77, 11)]
    program, *timers = played.fds
    os.fstat(program)
    for fd in timers:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


def test_timers_that_fail_are_noted_once(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(bpfsys, "perf_set_bpf", refuse)
    wish = Attach(kind="timer", function="on_tick", name="of 1 ms", optional=True, keeper=("c", 0))
    loaded = Made({}, {"c": 77})
    loaded.attach_all([wish, wish], attacher({}))
    assert loaded.notes == ("cannot attach to the timer of 1 ms (Invalid argument)",)
    assert not [kind for kind, _ in played.said if kind == "keep"]
