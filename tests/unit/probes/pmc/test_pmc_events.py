# SPDX-License-Identifier: Apache-2.0
"""perf's names of events, on machines that are made of files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.bpf import bpf_syscall
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.pmc import events as pmc_events
from probes.pmc import open_events
from probes.pmc.events import CUSTOM, MODES, SETS, Counter, check_events, kinds, parse, wanted

USER, KERNEL = MODES["user"], MODES["kernel"]
CPU_FORMAT = {
    "event": "config:0-7",
    "umask": "config:8-15",
    "cmask": "config:24-31",
    "any": "config:21",
    "frontend": "config1:0-23",
    "split": "config:0-7,32-35",
}
PLAIN = {
    "cpu": {"type": "4", "format": CPU_FORMAT, "events": {"mem-loads": "event=0xcd,umask=0x1"}},
    "msr": {"type": "9", "format": {"event": "config:0-63"}, "events": {"tsc": "event=0x00"}},
    "uncore_imc_0": {"type": "20", "cpumask": "0", "format": {"event": "config:0-7"}},
    "software": {"type": "1"},
}
HYBRID = {
    "cpu_core": {
        "type": "4",
        "cpus": "0-3",
        "format": CPU_FORMAT,
        "events": {"slots": "event=0,umask=4"},
    },
    "cpu_atom": {"type": "10", "cpus": "4-7", "format": CPU_FORMAT, "events": {}},
}
BIG_LITTLE = {
    "armv8_cortex_a53": {"type": "8", "cpus": "0-3", "format": {"event": "config:0-15"}},
    "armv8_cortex_a72": {"type": "9", "cpus": "4-5", "format": {"event": "config:0-15"}},
}
Machine = Callable[[dict[str, object]], None]


def write(directory: Path, tree: dict[str, object]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        if isinstance(content, dict):
            write(directory / name, content)
        else:
            (directory / name).write_text(f"{content}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(pmc_events, "DEVICES", tmp_path)
    return lambda tree: write(tmp_path, tree)


@pytest.fixture
def plain(machine: Machine) -> None:
    machine(PLAIN)


@pytest.mark.parametrize(
    ("text", "name", "kind", "config", "flags"),
    [
        ("cycles", "cycles", 0, 0, 0),
        ("cpu-cycles", "cycles", 0, 0, 0),
        ("branch-instructions:u", "branches:u", 0, 4, USER),
        ("stalled-cycles-backend", "stalled-cycles-backend", 0, 8, 0),
        ("ref-cycles:k", "ref-cycles:k", 0, 9, KERNEL),
        ("instructions:uk", "instructions:uk", 0, 1, 0),
        ("L1-dcache-loads", "L1-dcache-loads", 3, 0, 0),
        ("L1-dcache-load-misses", "L1-dcache-load-misses", 3, 0x10000, 0),
        ("LLC-store-misses", "LLC-store-misses", 3, 0x10102, 0),
        ("dTLB-prefetch-misses", "dTLB-prefetch-misses", 3, 0x10203, 0),
        ("iTLB-load-misses", "iTLB-load-misses", 3, 0x10004, 0),
        ("node-stores", "node-stores", 3, 0x106, 0),
        ("llc-load-misses", "llc-load-misses", 3, 0x10002, 0),
        ("minor-faults", "minor-faults", 1, 5, 0),
        ("minor-faults:u", "minor-faults:u", 1, 5, 0),
        ("r1a8", "r1a8", 4, 0x1A8, 0),
        ("rFFFF:u", "rFFFF:u", 4, 0xFFFF, USER),
        ("l2_miss=r3f24", "l2_miss", 4, 0x3F24, 0),
        ("mine=cycles:k", "mine", 0, 0, KERNEL),
        ("cpu/event=0x3c,umask=0x01/", "cpu/event=0x3c,umask=0x01/", 4, 0x13C, 0),
        ("cpu/event=0x3c,any/u", "cpu/event=0x3c,any/u", 4, 0x20003C, USER),
        ("cpu/event=0x3c,cmask=1/:k", "cpu/event=0x3c,cmask=1/:k", 4, 0x100003C, KERNEL),
        ("cpu/config=0x1234567890/", "cpu/config=0x1234567890/", 4, 0x1234567890, 0),
        ("cpu/mem-loads/", "cpu/mem-loads/", 4, 0x1CD, 0),
        ("mem-loads", "mem-loads", 4, 0x1CD, 0),
        ("x=cpu/mem-loads,cmask=2/u", "x", 4, 0x20001CD, USER),
        ("cpu/split=0xabc/", "cpu/split=0xabc/", 4, 0xA000000BC, 0),
        ("msr/tsc/", "msr/tsc/", 9, 0, 0),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("plain")
def test_names(text: str, name: str, kind: int, config: int, flags: int) -> None:
    event = parse(text)
    assert event.name == name
    assert event.counters == (Counter(kind, config, flags=flags),)
    assert event.hardware == (kind != bpf_syscall.PERF_SOFTWARE)


@pytest.mark.usefixtures("plain")
def test_second_words() -> None:
    (counter,) = parse("cpu/event=0xc6,frontend=0x11,config2=7/").counters
    assert counter == Counter(4, 0xC6, 0x11, 7)


@pytest.mark.usefixtures("plain")
def test_modes_are_for_what_can_tell_them() -> None:
    assert parse("cycles", "user").counters[0].flags == USER
    assert parse("cycles:k", "user").counters[0].flags == KERNEL
    assert parse("cpu/mem-loads/", "kernel").counters[0].flags == KERNEL
    assert parse("msr/tsc/", "user").counters[0].flags == 0
    assert parse("minor-faults", "user").counters[0].flags == 0
    assert USER == bpf_syscall.PERF_EXCLUDE_KERNEL | bpf_syscall.PERF_EXCLUDE_HV


@pytest.mark.parametrize(
    ("text", "why", "fix"),
    [
        ("cycels", "'cycels' is no event of perf's", "did you mean cycles"),
        ("LLC-load-mises", "'LLC-load-mises' is no event", "did you mean LLC-load-misses"),
        ("", "'' is no event of perf's", "see perf list"),
        ("rxyz", "'rxyz' is no event", ""),
        ("cycles:p", "'p' is no modifier", "write :u"),
        ("cpu/event=0x3c", "has no second slash", "write PMU/event=0x3c"),
        ("cpu/evnt=1/", "cpu has no field 'evnt'", "did you mean event"),
        ("cpu/event=0x1ff/", "cpu's event has 8 bits", "the largest is 0xff"),
        ("cpu/event=-1/", "does not fit", "the largest is 0xff"),
        ("cpu/event=zz/", "'zz' in 'event=zz' is no number", "write event=0x1"),
        ("cpu/mem-load/", "cpu has no event 'mem-load'", "did you mean mem-loads"),
        ("cup/event=1/", "no PMU 'cup'", ""),
        ("../x/event=1/", "no PMU", ""),
        ("cpu/../../x/", "cpu has no field", ""),
        ("uncore_imc_0/event=1/", "counts for a whole socket", "perf stat -a"),
    ],
)
@pytest.mark.usefixtures("plain")
def test_what_is_wrong_is_said_in_one_line(text: str, why: str, fix: str) -> None:
    with pytest.raises(ProbeError) as caught:
        parse(text)
    assert why in caught.value.why
    assert caught.value.fix.startswith(fix)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_an_event_or_an_error(text: str) -> None:
    said = "fine"
    try:
        assert parse(text).counters
    except ProbeError as error:
        said = str(error)
    assert said.isprintable()


def test_two_kinds_of_cpus(machine: Machine) -> None:
    machine(HYBRID)  # type: ignore[arg-type]
    event = parse("cache-misses", "user")
    core, atom = frozenset(range(4)), frozenset(range(4, 8))
    assert set(event.counters) == {
        Counter(0, 3 | 4 << 32, flags=USER, cpus=core),
        Counter(0, 3 | 10 << 32, flags=USER, cpus=atom),
    }
    assert event.on(2) == Counter(0, 3 | 4 << 32, flags=USER, cpus=core)
    assert event.on(9) is None
    assert {c.kind for c in parse("r1a8").counters} == {4, 10}
    assert {c.kind for c in parse("cpu/event=0xc4/").counters} == {4, 10}
    assert parse("slots").counters == (Counter(4, 0x400, cpus=core),)
    assert parse("slots").on(5) is None
    assert kinds() == dict.fromkeys(core, "cpu_core") | dict.fromkeys(atom, "cpu_atom")


def test_arms_kinds_are_chosen_by_the_cpu(machine: Machine) -> None:
    machine(BIG_LITTLE)  # type: ignore[arg-type]
    assert parse("cycles").counters == (Counter(0, 0),)
    assert {c.kind for c in parse("r11").counters} == {8, 9}
    assert kinds()[5] == "armv8_cortex_a72"


@pytest.mark.usefixtures("plain")
def test_sets() -> None:
    assert kinds() == {}
    for name, events in SETS.items():
        assert [event.name for event in wanted(name, "all", ())] == list(events)
    own = wanted(CUSTOM, "all", ["page-faults", "cs", "r1", "r1", "cycles"])
    assert [event.name for event in own] == ["r1", "cycles"]
    with pytest.raises(ProbeError, match="9 events are too many"):
        wanted(CUSTOM, "all", [f"r{number}" for number in range(9)])


@pytest.mark.usefixtures("plain")
def test_a_users_list() -> None:
    text = "cycles,cpu/event=0x3c,umask=1/u, x=r1a8"
    assert check_events([text]) == ["cycles", "cpu/event=0x3c,umask=1/u", "x=r1a8"]
    for value in ([], [","], "cycles", [3], ["cycels"], None):
        with pytest.raises(ProbeError):
            check_events(value)


# -- what this machine offers --------------------------------------------------------------


class Opened:
    """perf_event_open, played: errnos by kind, and what was put where."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cpus: list[int]) -> None:
        self.errors: dict[int, int] = {}
        self.gone: set[int] = set()
        self.put: dict[int, tuple[int, int]] = {}
        self._fds: dict[int, tuple[int, int]] = {}
        monkeypatch.setattr(bpf_syscall, "perf_event_open", self.open)
        monkeypatch.setattr(bpf_syscall, "map_update", self.update)
        monkeypatch.setattr(kernel, "online_cpus", lambda: cpus)

    def open(self, kind: int, config: int, *, cpu: int, **_: int) -> int:
        number = errno.ENODEV if cpu in self.gone else self.errors.get(kind)
        if number:
            raise OSError(number, os.strerror(number))
        fd = os.memfd_create("played")
        self._fds[fd] = (config, cpu)
        return fd

    def update(self, fd: int, key: int, value: int) -> None:
        assert fd == 77
        os.fstat(value)
        self.put[key] = self._fds[value]


@pytest.mark.usefixtures("plain")
def test_events_are_put_by_slot_and_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Opened(monkeypatch, [0, 1, 3])
    before = len(os.listdir("/proc/self/fd"))
    offer = open_events.offered(wanted("branch", "all", ()))
    assert [event.name for event in offer.events] == list(SETS["branch"])
    assert (offer.absent, offer.reason) == ({}, None)
    played.gone.add(3)
    assert open_events.fill(offer.events, 77, 8) == {}
    assert played.put == {
        slot * 8 + cpu: (config, cpu) for slot, config in enumerate((0, 1, 4, 5)) for cpu in (0, 1)
    }
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("plain")
def test_what_is_absent_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Opened(monkeypatch, [0, 1])
    played.errors = {bpf_syscall.PERF_HW_CACHE: errno.ENOENT}
    offer = open_events.offered(wanted("cache", "all", ()))
    assert [event.name for event in offer.events] == list(SETS["cache"][:4])
    assert set(offer.absent) == {"L1-dcache-load-misses", "LLC-load-misses"}
    assert offer.absent["LLC-load-misses"] == "the CPU has no such counter (ENOENT)"
    assert offer.reason is None


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "kernel.perf_event_paranoid = 3 or a security module forbids it (EACCES)"),
        (errno.EBUSY, "the NMI watchdog holds a counter: sysctl kernel.nmi_watchdog=0 (EBUSY)"),
        (errno.EOPNOTSUPP, "the CPU's PMU does not support it (EOPNOTSUPP)"),
        (errno.EINVAL, "the CPU's PMU does not take it (EINVAL)"),
        (errno.EIO, "Input/output error (EIO)"),
    ],
)
@pytest.mark.usefixtures("plain")
def test_reasons(monkeypatch: pytest.MonkeyPatch, number: int, said: str) -> None:
    files = {
        "/proc/sys/kernel/perf_event_paranoid": "3",
        "/proc/sys/kernel/nmi_watchdog": "1",
        "/sys/kernel/security/lockdown": "[none] integrity",
    }
    real = kernel.read_text
    monkeypatch.setattr(kernel, "read_text", lambda path: files.get(str(path)) or real(path))
    Opened(monkeypatch, [0]).errors = {0: number}
    offer = open_events.offered(wanted("base", "all", ()))
    assert offer.events == ()
    assert set(offer.absent.values()) == {said}
    assert offer.reason == f"no hardware counter can be opened: {said}"


def test_without_a_pmu_the_machine_is_named(
    monkeypatch: pytest.MonkeyPatch, machine: Machine
) -> None:
    machine({"software": {"type": "1"}})
    Opened(monkeypatch, [0]).errors = {0: errno.ENOENT, 4: errno.ENOENT}
    for name, said in (
        ("KVM", "this virtual machine (KVM) was given no hardware counters (PMU): ENOENT"),
        ("unknown", "this virtual machine was given no hardware counters (PMU): ENOENT"),
        (None, "this machine shows no hardware counters (PMU): perf_event_open says ENOENT"),
    ):
        monkeypatch.setattr(kernel, "virtual_machine", lambda name=name: name)
        assert open_events.offered(wanted("base", "all", ())).reason == said
    assert open_events.offered(wanted(CUSTOM, "all", ["minor-faults"])).reason == (
        "no hardware counter was asked for"
    )


def test_a_kind_that_lacks_an_event_leaves_it_to_the_other(
    monkeypatch: pytest.MonkeyPatch, machine: Machine
) -> None:
    machine(HYBRID)  # type: ignore[arg-type]
    played = Opened(monkeypatch, [0, 5])
    played.errors = {10: errno.ENOENT}
    offer = open_events.offered([parse("r1a8")])
    assert offer.absent == {}
    missing = open_events.fill(offer.events, 77, 8)
    assert missing == {"r1a8": "not on CPU 5: the CPU has no such counter (ENOENT)"}
    assert played.put == {0: (0x1A8, 0)}
