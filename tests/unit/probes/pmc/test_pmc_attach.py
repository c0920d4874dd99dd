# SPDX-License-Identifier: Apache-2.0
"""Tracepoints by their types, and timers that a map keeps, without a kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from probes.bpf import bpf_syscall
from probes.bpf.attach import Again, Attacher
from probes.bpf.plan import Attach
from probes.bpf.program_loader import Made
from probes.broker.units import Units
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.ipc.messages import LoadAnswer, Recipe

RETURN = bpf_syscall.RETURN_0


class Played:
    """bpf(2) and perf_event_open(2): what was asked, and descriptors as answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[tuple[str, object]] = []
        self.fds: list[int] = []
        for name in ("prog_load", "raw_tracepoint_open", "perf_event_open", "perf_set_bpf"):
            monkeypatch.setattr(bpf_syscall, name, getattr(self, name))
        monkeypatch.setattr(bpf_syscall, "perf_enable", lambda event: None)
        monkeypatch.setattr(bpf_syscall, "map_update", self.map_update)

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
    assert played.said == [("load", (bpf_syscall.PROG_TRACING, 23, 42)), ("open", None)]
    with pytest.raises(ProbeError, match="types have no tracepoint sched_switch"):
        attacher({"sched_switch": 1}).attach(wish)


def test_an_edge_is_loaded_and_attached_to_nothing(played: Played) -> None:
    one = attacher({})
    link = one.attach(Attach(kind="edge", function="on_edge"))
    assert played.said == [("load", (bpf_syscall.PROG_RAW_TRACEPOINT, 0, 0))]
    (program,) = one.programs.values()
    assert one.recipes == {link: Again("edge", program, config=kernel.possible_cpus())}
    # It is the program once more, so that it is there while the unit is.
    assert os.path.sameopenfile(link, program)
    os.close(link)


def test_edges_run_on_each_cpu_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[int, int, list[int]]] = []

    def run(program: int, cpu: int, args: list[int]) -> None:
        if cpu == 1:
            raise OSError(errno.ENXIO, "no such CPU")
        runs.append((program, cpu, args))

    monkeypatch.setattr(bpf_syscall, "run_on_cpu", run)
    units = Units(lambda fds: None)
    answer = LoadAnswer(
        id=1, ok=True, programs=2, links=[None, None],
        recipes=[Recipe("btf_tracepoint", 0), Recipe("edge", 1, "", 3)],
    )  # fmt: skip
    units.adopt(answer, [100, 101, 102, 103])
    links = units.switchable(answer.unit, None)
    assert [link.fd for link in links] == [102, 103]
    units.run_edges(answer.unit, links, 5)
    assert runs == [(101, 0, [5]), (101, 2, [5])]
    closed: list[int] = []
    monkeypatch.setattr(os, "close", closed.append)
    units.pause(links)
    assert closed == [102]
    assert [link.fd for link in links] == [-1, 103]
    units.detach(answer.unit, None)


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
    clock = (bpf_syscall.PERF_SOFTWARE, bpf_syscall.PERF_CPU_CLOCK)
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

    monkeypatch.setattr(bpf_syscall, "perf_set_bpf", refuse)
    wish = Attach(kind="timer", function="on_tick", name="of 1 ms", optional=True, keeper=("c", 0))
    loaded = Made({}, {"c": 77})
    loaded.attach_all([wish, wish], attacher({}))
    assert loaded.notes == ("cannot attach to the timer of 1 ms (Invalid argument)",)
    assert not [kind for kind, _ in played.said if kind == "keep"]
