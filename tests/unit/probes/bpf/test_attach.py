# SPDX-License-Identifier: Apache-2.0
"""Patching instructions, loading each variant once, and what refusals mean, without a kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from probes.bpf import attach, bpf_syscall
from probes.bpf.attach import Attacher, patched
from probes.bpf.plan import Attach, Mechanism
from probes.core import kernel
from probes.core.errors import ProbeError

PATCH = 0x50544F5000000001
LDDW, MOV, EXIT = 0x18, 0xB7, 0x95


def load(value: int, register: int = 1, source: int = 0) -> bytes:
    """A 64-bit load of a constant: two instructions."""
    low, high = value & 0xFFFFFFFF, value >> 32
    registers = register | source << 4
    return struct.pack("<BBhI", LDDW, registers, 0, low) + struct.pack("<BBhI", 0, 0, 0, high)


def other(opcode: int, value: int = 0) -> bytes:
    return struct.pack("<BBhI", opcode, 0, 0, value)


@pytest.mark.parametrize("value", [0, 5, 0xFFFFFFFF, 1 << 32, (1 << 64) - 1])
def test_constants_are_replaced(value: int) -> None:
    before = [other(MOV, 1), load(PATCH), other(MOV, 2), load(PATCH, 7), other(EXIT)]
    after = [other(MOV, 1), load(value), other(MOV, 2), load(value, 7), other(EXIT)]
    assert patched(b"".join(before), {PATCH: value}) == b"".join(after)


def test_what_is_no_constant_to_replace_stays() -> None:
    code = b"".join(
        [
            load(PATCH + 1),  # another constant
            load(PATCH, source=1),  # a map: the value is a descriptor
            other(MOV, PATCH & 0xFFFFFFFF),  # half of it, in an instruction of 32 bits
            load(PATCH >> 32 | (PATCH & 0xFFFFFFFF) << 32),  # its halves the other way round
        ]
    )
    assert patched(code, {PATCH: 9}) == code
    assert patched(code, {}) == code


def test_several_constants_at_once() -> None:
    code = load(PATCH) + load(PATCH + 1) + load(PATCH)
    # A value that is the other's constant is not replaced once more.
    assert patched(code, {PATCH: PATCH + 1, PATCH + 1: 3}) == load(PATCH + 1) + load(3) + load(
        PATCH + 1
    )


def test_a_cut_program_does_not_crash() -> None:
    assert patched(load(PATCH)[:8], {PATCH: 1}) == load(PATCH)[:8]
    assert patched(b"", {PATCH: 1}) == b""


def test_every_end_of_an_undisturbed_program_is_the_same() -> None:
    """The loaded constant has the opcode of an exit in its second half's value, not place."""
    body = [
        bpf_syscall.insn(0x15, 1, off=1),
        bpf_syscall.insn(EXIT),
        load(EXIT << 32),
        bpf_syscall.insn(EXIT),
    ]
    code = attach.undisturbed(b"".join(body), 100, 200)
    instructions = [struct.unpack_from("<BBhi", code, at) for at in range(0, len(code), 8)]
    call, jump, source = bpf_syscall.CALL, 0x05, 2 << 4
    assert instructions[:3] == [
        (0xBF, 6 | 1 << 4, 0, 0),
        (call, source, 0, 100),
        (0xBF, 1 | 6 << 4, 0, 0),
    ]
    ends = [at for at, (opcode, *_) in enumerate(instructions) if opcode == jump]
    assert ends == [4, 7]
    assert {at + 1 + instructions[at][2] for at in ends} == {8}
    assert instructions[8:] == [(call, source, 0, 200), (0xB7, 0, 0, 0), (EXIT, 0, 0, 0)]
    assert code[3 * 8 :][:8] == body[0]
    assert code[5 * 8 :][:16] == body[2]


@pytest.mark.parametrize(
    ("kind", "known", "tries"),
    [("uprobe", True, 2), ("uretprobe", False, 1), ("kprobe", True, 1)],
)
def test_programs_in_user_space_are_undisturbed_where_the_kernel_lets_them(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, kind: Mechanism, known: bool, tries: int
) -> None:
    """A kernel that refuses it gets the program as it is."""
    plain = load(PATCH) + other(EXIT)
    seen = []

    def prog_load(kind: int, code: bytes, **settings: object) -> int:
        seen.append(code)
        if code != plain:
            raise OSError(errno.EINVAL, "refused")
        return calls.descriptor()

    monkeypatch.setattr(bpf_syscall, "prog_load", prog_load)
    ids = {"bpf_preempt_disable": 7, "bpf_preempt_enable": 8} if known else {}
    made = Attacher(lambda name: plain, ids.get)
    made.attach(Attach(kind=kind, function="f", path="/a", target="x"))
    assert len(seen) == tries
    assert seen[-1] == plain
    assert (seen[0] == attach.undisturbed(plain, 7, 8)) == (tries == 2)


class Calls:
    """bpf(2) and perf_event_open(2), played: what was asked, and descriptors as answers."""

    def __init__(self) -> None:
        self.loads: list[tuple[int, bytes, dict[str, object]]] = []
        self.events: list[tuple[int, int, dict[str, int]]] = []
        self.names: list[bytes | None] = []
        self.raw: list[tuple[int, str | None]] = []
        self.enabled: list[int] = []
        self.opened: list[int] = []
        self.error: OSError | None = None

    def descriptor(self) -> int:
        self.opened.append(os.memfd_create("played"))
        return self.opened[-1]

    def prog_load(self, kind: int, code: bytes, **settings: object) -> int:
        self.loads.append((kind, code, settings))
        return self.descriptor()

    def perf_event_open(self, kind: int, config: int, **settings: int) -> int:
        if self.error:
            raise self.error
        self.events.append((kind, config, settings))
        address = settings.get("config1")
        self.names.append(ctypes.string_at(address) if address else None)
        return self.descriptor()

    def raw_tracepoint_open(self, program: int, name: str | None) -> int:
        if self.error:
            raise self.error
        self.raw.append((program, name))
        return self.descriptor()

    def perf_set_bpf(self, event: int, program: int) -> None:
        if self.error:
            raise self.error

    def perf_enable(self, event: int) -> None:
        self.enabled.append(event)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Calls]:
    played = Calls()
    for name in ("prog_load", "perf_event_open", "raw_tracepoint_open", "perf_set_bpf"):
        monkeypatch.setattr(bpf_syscall, name, getattr(played, name))
    monkeypatch.setattr(bpf_syscall, "perf_enable", played.perf_enable)
    numbers = {"kprobe": "8", "uprobe": "9"}

    def read(path: str | Path) -> str | None:
        text = str(path)
        pmu = next((n for n in numbers if f"/{n}/type" in text), None)
        if pmu:
            return numbers[pmu]
        return "77" if text.endswith("events/sched/sched_switch/id") else None

    monkeypatch.setattr(kernel, "read_text", read)
    monkeypatch.setattr(kernel, "tracefs", lambda: tmp_path)
    yield played
    for fd in played.opened:
        try:
            os.close(fd)
        except OSError:
            continue  # the code under test has closed it


def attacher() -> Attacher:
    return Attacher(lambda name: load(PATCH) + other(EXIT), {"vfs_read": 1234}.get)


def test_every_variant_is_loaded_once(calls: Calls) -> None:
    made = attacher()
    for patch in ({PATCH: 1}, {PATCH: 2}, {PATCH: 1}):
        for path in ("/a", "/b"):
            made.attach(Attach(kind="uprobe", function="enter", path=path, patch=patch))
    made.attach(Attach(kind="uprobe", function="leave", path="/a", patch={PATCH: 1}))
    codes = [code for _, code, _ in calls.loads]
    assert codes == [load(value) + other(EXIT) for value in (1, 2, 1)]
    assert len(calls.events) == 7
    assert calls.enabled == [fd for fd in calls.opened if fd not in made.programs.values()]
    assert len(made.programs) == len(set(made.programs)) == 3


def test_forgetting_closes_programs_and_loads_anew(calls: Calls) -> None:
    made = attacher()
    wish = Attach(kind="tracepoint", function="event", target="sched:sched_switch")
    event = made.attach(wish)
    (program,) = made.programs.values()
    made.forget()
    assert made.programs == {}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(program)
    os.fstat(event)
    made.attach(wish)
    assert len(calls.loads) == 2


@pytest.mark.parametrize(
    ("wish", "kind", "config", "settings", "name"),
    [
        (
            Attach(kind="uprobe", function="f", path="/bin/a", offset=0x1234),
            9, 0, {"pid": -1, "cpu": 0, "config2": 0x1234}, b"/bin/a",
        ),
        (
            Attach(kind="uretprobe", function="f", path="/bin/a", offset=16, pid=7),
            9, 1, {"pid": 7, "cpu": -1, "config2": 16}, b"/bin/a",
        ),
        (
            Attach(kind="uprobe", function="f", path="/bin/a", offset=16, counter=0x88),
            9, 0x88 << 32, {"pid": -1, "cpu": 0, "config2": 16}, b"/bin/a",
        ),
        (
            Attach(kind="kretprobe", function="f", target="vfs_read"),
            8, 1, {"pid": -1, "cpu": 0, "config2": 0}, b"vfs_read",
        ),
        (
            Attach(kind="tracepoint", function="f", target="sched:sched_switch"),
            bpf_syscall.PERF_TRACEPOINT, 77, {"cpu": 0}, None,
        ),
    ],
)  # fmt: skip
def test_events(
    calls: Calls,
    wish: Attach,
    kind: int,
    config: int,
    settings: dict[str, int],
    name: bytes | None,
) -> None:
    attacher().attach(wish)
    ((found_kind, found_config, found),) = calls.events
    assert (found_kind, found_config) == (kind, config)
    assert settings.items() <= found.items()
    assert calls.names == [name]


def test_fentry_is_loaded_for_its_function(calls: Calls) -> None:
    made = attacher()
    made.attach(Attach(kind="fentry", function="f", target="vfs_read"))
    made.attach(Attach(kind="fexit", function="f", target="vfs_read"))
    kinds = {kind for kind, _, _ in calls.loads}
    types = [settings["attach_type"] for _, _, settings in calls.loads]
    assert kinds == {bpf_syscall.PROG_TRACING}
    assert types[0] == bpf_syscall.ATTACH_FENTRY
    assert types[0] != types[1]
    assert {settings["btf_id"] for _, _, settings in calls.loads} == {1234}
    assert [name for _, name in calls.raw] == [None, None]
    with pytest.raises(ProbeError, match="not in the kernel's types") as caught:
        made.attach(Attach(kind="fentry", function="f", target="vfs_write"))
    assert caught.value.fix == "write kprobe:vfs_write"


REFUSALS: list[tuple[Attach, int, str]] = [
    (Attach(kind="fentry", function="f", target="vfs_read"), errno.EPERM, "refuses fentry"),
    (Attach(kind="fexit", function="f", target="vfs_read"), 524, "refuses fentry"),
    (Attach(kind="raw_tracepoint", function="f", target="x"), errno.ENOENT, "no raw tracepoint x"),
    (Attach(kind="kprobe", function="f", target="x"), errno.EINVAL, "no kprobe into x"),
    (Attach(kind="kretprobe", function="f", target="x"), errno.EADDRNOTAVAIL, "no kprobe into x"),
    (Attach(kind="uprobe", function="f", path="/x"), errno.EMFILE, "too few file descriptors"),
    (Attach(kind="uprobe", function="f", path="/x"), errno.ENOSPC, "no more probes"),
    (Attach(kind="uprobe", function="f", path="/x", name="main"), errno.EIO, "uprobe main"),
]


@pytest.mark.parametrize(("wish", "number", "why"), REFUSALS)
def test_refusals_are_sentences(calls: Calls, wish: Attach, number: int, why: str) -> None:
    calls.error = OSError(number, os.strerror(number))
    made = attacher()
    with pytest.raises(ProbeError, match=why) as caught:
        made.attach(wish)
    assert caught.value.fix
    assert "\n" not in caught.value.why


def test_a_refused_event_is_closed(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(event: int, program: int) -> None:
        raise OSError(errno.E2BIG, "Argument list too long")

    monkeypatch.setattr(bpf_syscall, "perf_set_bpf", refuse)
    made = attacher()
    with pytest.raises(ProbeError, match="cannot attach to the uprobe /x"):
        made.attach(Attach(kind="uprobe", function="f", path="/x"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(calls.opened[-1])


def missing(*paths: object) -> None:
    return None


@pytest.mark.parametrize(
    ("wish", "tracefs", "why"),
    [
        (Attach(kind="kprobe", function="f", target="x"), True, "without kprobes"),
        (Attach(kind="uprobe", function="f", path="x"), True, "without uprobes"),
        (Attach(kind="tracepoint", function="f", target="a:b"), True, "no tracepoint a:b"),
        (Attach(kind="tracepoint", function="f", target="a:b"), False, "tracefs is not mounted"),
    ],
)
def test_what_a_kernel_lacks(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, wish: Attach, tracefs: bool, why: str
) -> None:
    monkeypatch.setattr(kernel, "read_text", missing)
    if not tracefs:
        monkeypatch.setattr(kernel, "tracefs", lambda: None)
    with pytest.raises(ProbeError, match=why) as caught:
        attacher().attach(wish)
    assert caught.value.fix


def test_a_program_that_the_verifier_refuses(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refused = bpf_syscall.VerifierError(errno.EACCES, "Permission denied")
    refused.log = "R6 unbounded memory access\n"
    load_one: Callable[..., int] = calls.prog_load

    def prog_load(kind: int, code: bytes, **settings: object) -> int:
        load_one(kind, code, **settings)
        raise refused

    monkeypatch.setattr(bpf_syscall, "prog_load", prog_load)
    with pytest.raises(ProbeError, match=r"refused the program enter \(Permission denied\)"):
        attacher().attach(Attach(kind="uprobe", function="enter", path="/x"))
    # The loader's descriptor 2 is the log file.
    assert "R6 unbounded" in capfd.readouterr().err


def test_all_kinds_have_a_type() -> None:
    assert set(attach._TYPES) == {
        "raw_tracepoint", "btf_tracepoint", "tracepoint", "kprobe", "kretprobe", "uprobe",
        "uretprobe", "fentry", "fexit", "timer", "edge",
    }  # fmt: skip


def test_neighbours_of_one_program_and_file_are_one_batch() -> None:
    one: dict[str, Any] = {"function": "f", "path": "/a", "group": 1}
    wishes = [
        Attach(kind="raw_tracepoint", function="g", target="t", group=1),
        Attach(kind="raw_tracepoint", function="g", target="t", group=1),
        Attach(kind="uretprobe", offset=1, **one),
        Attach(kind="uretprobe", offset=2, counter=7, **one),
        Attach(kind="uprobe", offset=1, **one),
        Attach(kind="uprobe", offset=2, patch={PATCH: 1}, **one),
        Attach(kind="uprobe", offset=3, patch={PATCH: 1}, **one),
        Attach(kind="uprobe", offset=3, patch={PATCH: 1}, **{**one, "path": "/b"}),
        Attach(kind="uprobe", offset=3, patch={PATCH: 1}, **{**one, "group": 2}),
    ]
    assert [len(batch) for batch in attach.batches(wishes)] == [1, 1, 2, 1, 2, 1, 1]
    assert [wish for batch in attach.batches(wishes) for wish in batch] == wishes


BATCH = [
    Attach(kind="uretprobe", function="f", path="/a", offset=at, counter=c)
    for at, c in ((16, 0), (32, 8))
]


def test_a_batch_is_one_link_where_the_kernel_can(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[object, ...]] = []

    def link(*words: object) -> int:
        made.append(words)
        return calls.descriptor()

    monkeypatch.setattr(bpf_syscall, "uprobe_multi_link", link)
    one = Attacher(lambda name: load(PATCH) + other(EXIT), lambda name: None, multi=True)
    (fd,) = one.attach_batch(BATCH)
    ((kind, _, more),) = calls.loads
    assert (kind, more["attach_type"]) == (bpf_syscall.PROG_KPROBE, bpf_syscall.ATTACH_UPROBE_MULTI)
    assert made == [(one.programs["f"], "/a", [16, 32], [0, 8], True)]
    assert not calls.events
    assert fd in calls.opened


@pytest.mark.parametrize("multi", [False, True])
def test_a_batch_is_attached_one_by_one_where_it_cannot(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, multi: bool
) -> None:
    def refuse(*words: object) -> int:
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(bpf_syscall, "uprobe_multi_link", refuse)
    one = Attacher(lambda name: load(PATCH) + other(EXIT), lambda name: None, multi=multi)
    assert len(one.attach_batch(BATCH)) == 2
    assert [more["config2"] for _, _, more in calls.events] == [16, 32]
    # A program of the one kind cannot be attached in the other way.
    types = [more["attach_type"] for _, _, more in calls.loads]
    assert types == ([bpf_syscall.ATTACH_UPROBE_MULTI, 0] if multi else [0])
