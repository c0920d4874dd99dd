# SPDX-License-Identifier: Apache-2.0
"""From targets to programs and events, on a kernel and with files that the test makes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probes.bpf import btf, compiler
from probes.bpf.plan import Attach
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.latency import floors, planner
from probes.latency.planner import (
    AT_A,
    AT_B,
    AT_TEXT,
    DEFAULTS,
    HOW_A,
    HOW_B,
    HOW_TEXT,
    MOST_TARGETS,
    NO_VALUES,
    TARGET,
    wish,
)
from probes.latency.probe import LatencyProbe, geometry
from probes.symbols import binaries, kernel_functions, target_spec
from probes.symbols.usdt_operands import RECORD
from probes.uprobes import empty_functions
from tests.paths import INCLUDE, PROBES
from tests.unit.elf_file import CODE_AT, FUNC, GLOBAL, ElfFile, usdt_note

OWN = (INCLUDE / "own_returns.h").read_text()
SOURCE = (PROBES / "latency" / "latency.bpf.c").read_text() + OWN[OWN.index("#ifdef USE_OWN") :]
CONSTANTS = (INCLUDE / "target.h").read_text()
FORMAT = """name: {name}
ID: 7
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;
\tfield:sector_t sector;\toffset:{sector};\tsize:8;\tsigned:0;
\tfield:unsigned int nr;\toffset:32;\tsize:4;\tsigned:0;
\tfield:char rwbs[8];\toffset:40;\tsize:8;\tsigned:0;
"""


@pytest.fixture(autouse=True)
def tracefs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tracefs with two tracepoints, whose fields are not at the same places."""
    root = tmp_path / "tracing"
    for name, sector in (("issue", 16), ("complete", 24)):
        directory = root / "events" / "block" / name
        directory.mkdir(parents=True)
        (directory / "format").write_text(FORMAT.format(name=name, sector=sector))
    monkeypatch.setattr(kernel, "tracefs", lambda: root)
    return root


@pytest.fixture
def program(tmp_path: Path) -> str:
    """An ELF file with four functions and two static probes."""
    names = ("main", "work_a", "work_b", "_start")
    rows: list[Any] = [(name, FUNC, GLOBAL, 16 * at, 16) for at, name in enumerate(names)]
    notes = usdt_note("app", "begin", 0x80) + usdt_note("app", "end", 0x90)
    notes += usdt_note("app", "end", 0xA0)
    path = tmp_path / "program"
    path.write_bytes(ElfFile(symtab=rows, notes=notes).build())
    return str(path)


def of(text: str, slot: int = 0) -> list[tuple[str, str, str]]:
    """(kind, program, event) of what is attached for a target, in its order."""
    return [(a.kind, a.function, a.target or a.name) for a in wish(text, slot).attach]


def test_constants_are_the_sources() -> None:
    rows = re.findall(r"#define PATCH_(\w+) PATCH\((\d+)\)", CONSTANTS)
    found = {name: int(n) for name, n in rows}
    ours = {"TARGET": TARGET, "HOW_A": HOW_A, "AT_A": AT_A, "HOW_B": HOW_B, "AT_B": AT_B}
    ours |= {"HOW_TEXT": HOW_TEXT, "AT_TEXT": AT_TEXT}
    assert {name: value & 0xFF for name, value in ours.items()} == found
    prefix = re.search(r"%0 = (0x[0-9a-f]+)\" #n", CONSTANTS)
    assert prefix is not None
    for name, value in ours.items():
        assert value == int(f"{prefix[1]}{found[name]:02d}", 16), name


def test_every_program_is_in_the_source(program: str) -> None:
    defined = set(re.findall(r"^int (\w+)\(", SOURCE, re.M))
    targets = [*target_spec.PRESETS, "syscall:read", "tracepoint:block:issue"]
    targets += [f"uprobe:{program}:main", f"usdt:{program}:app:begin", "t:block:issue@nr"]
    targets += [f"usdt:{program}:app:begin,usdt:{program}:app:end"]
    used = {one.function for target in targets for one in wish(target, 0).attach}
    used |= {name for pair in planner.RETURNS.values() for name in pair[1:]}
    used |= {name for pair in planner.OWN.values() for name in pair}
    # Of a wildcard, for functions whose returns are not known.
    assert used | {"untimed"} == defined


def test_every_program_is_compiled_where_it_is_used(program: str) -> None:
    """Each is in the part of the source that its target's plan asks for."""
    places: dict[str, str] = {}
    part = ""
    for line in SOURCE.splitlines():
        part = line.removeprefix("#ifdef ") if line.startswith("#ifdef USE_") else part
        part = "" if line.startswith("#endif") else part
        found = re.match(r"int (\w+)\(", line)
        if found:
            places[found[1]] = part
    targets = [*target_spec.PRESETS, "syscall:read", "tracepoint:block:issue", "t:block:issue@nr"]
    targets += [f"uprobe:{program}:main", f"usdt:{program}:app:begin,usdt:{program}:app:end"]
    for target in targets:
        attach = wish(target, 0).attach
        wanted = planner.parts(attach, [])
        assert {places[one.function] for one in attach} - {""} == set(wanted), target
    for pair in planner.OWN.values():
        assert {places[name] for name in pair} == {
            planner.PARTS[name] for name in pair if name in planner.PARTS
        }
    own = [kind + empty_functions.OWN for kind in empty_functions.KINDS]
    assert planner.parts([], ["fentry", "kprobe", "syscall", *empty_functions.KINDS, *own]) == {
        "USE_FUNCTIONS": 1,
        "USE_OWN": 1,
        "USE_PAIRS": 1,
        "USE_TRAMPOLINES": 1,
    }


def test_every_attachment_has_its_slot_and_all_constants(program: str) -> None:
    for text in (*target_spec.PRESETS, "syscall:read", f"uprobe:{program}:main", "t:block:issue"):
        made = wish(text, 42)
        assert made.attach
        for one in made.attach:
            assert one.group == 42
            assert one.patch[TARGET] == 42
            assert set(one.patch) == {TARGET, *NO_VALUES}


def test_system_calls_end_before_they_begin() -> None:
    """What is attached first sees ends without beginnings, and never the other way round."""
    assert of("syscall:read") == [
        ("tracepoint", "pair_end", "syscalls:sys_exit_read"),
        ("tracepoint", "pair_begin", "syscalls:sys_enter_read"),
    ]
    assert wish("syscall:read", 0).mechanism == "syscall"
    with pytest.raises(ProbeError, match="no system call 'raed'"):
        wish("syscall:raed", 0)


def test_a_pair_is_joined_by_fields_where_each_has_them() -> None:
    made = wish("tracepoint:block:issue,tracepoint:block:complete@dev,sector", 3)
    end, begin = made.attach
    assert (end.function, end.target) == ("pair_end", "block:complete")
    assert (begin.function, begin.target) == ("pair_begin", "block:issue")
    common = {**NO_VALUES, TARGET: 3, HOW_A: RECORD | 4, AT_A: 8, HOW_B: RECORD | 8}
    assert end.patch == {**common, AT_B: 24}
    assert begin.patch == {**common, AT_B: 16}
    assert (made.counts_only, made.mechanism) == (False, "tracepoint")


def test_a_pair_without_fields_is_joined_by_the_thread() -> None:
    made = wish("t:block:issue,t:block:complete", 3)
    assert {one.patch[HOW_A] for one in made.attach} == {0}
    single = wish("t:block:issue", 3)
    assert [one.function for one in single.attach] == ["event"]
    assert single.counts_only


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("t:block:issue,t:block:complete@dev,sector,nr", "names too much"),
        ("t:block:issue,t:block:complete@sectr", "no field 'sectr'"),
        ("t:block:issue,t:block:complete@rwbs", "is text"),
        ("t:block:issue,t:block:completed", "no tracepoint 'block:completed'"),
    ],
)
def test_pairs_that_cannot_be(text: str, why: str) -> None:
    with pytest.raises(ProbeError, match=why) as caught:
        wish(text, 0)
    assert caught.value.fix


def test_functions_of_a_program(program: str) -> None:
    made = wish(f"uprobe:{program}:main", 0)
    assert of(f"uprobe:{program}:main") == [
        ("raw_tracepoint", "thread_end", "sched_process_exit"),
        ("uretprobe", "function_leave", "main"),
        ("uprobe", "function_enter", "main"),
    ]
    assert {one.offset for one in made.attach[1:]} == {CODE_AT}
    assert {one.file.path for one in made.attach[1:] if one.file} == {program}
    assert {os.readlink(one.path) for one in made.attach[1:]} == {program}
    assert (made.mechanism, made.counts_only, made.functions) == ("uprobe", False, 1)
    assert made.facts("x", 0)["floor"] in empty_functions.KINDS


def test_a_wildcard_has_all_returns_before_any_entry(program: str) -> None:
    made = wish(f"uprobe:{program}:work_*", 0)
    assert made.functions == 2
    kinds = [one.kind for one in made.attach]
    assert kinds == ["raw_tracepoint", "uretprobe", "uretprobe", "uprobe", "uprobe"]


@pytest.mark.parametrize("symbol", ["main+0x4", "0x403000", "_start"])
def test_what_does_not_return_is_counted(program: str, symbol: str) -> None:
    address = 0x400000 + CODE_AT + 0x2000 + 5
    text = f"uprobe:{program}:{address:#x}" if symbol == "0x403000" else f"u:{program}:{symbol}"
    made = wish(text, 0)
    assert [(one.kind, one.function) for one in made.attach] == [("uprobe", "event")]
    assert made.counts_only


def test_static_probes(program: str) -> None:
    single = wish(f"usdt:{program}:app:end", 0)
    # It was compiled in twice, and either counts.
    assert [one.function for one in single.attach] == ["event", "event"]
    assert single.counts_only
    assert single.mechanism == "usdt"
    pair = wish(f"usdt:{program}:app:begin,usdt:{program}:app:end", 0)
    assert [one.function for one in pair.attach] == [
        "nest_thread_end",
        *["nest_end", "nest_end", "nest_begin"],
    ]
    assert not pair.counts_only
    with pytest.raises(ProbeError, match="no static probe"):
        wish(f"usdt:{program}:app:begun", 0)


def test_an_event_that_is_measured_by_a_field() -> None:
    made = wish("t:block:issue@nr", 3)
    (one,) = made.attach
    assert (one.function, one.patch[HOW_A], one.patch[AT_A]) == ("value_event", RECORD | 4, 32)
    assert (made.unit, made.counts_only) == ("", False)
    with pytest.raises(ProbeError, match="rwbs of block:issue is text"):
        wish("t:block:issue@rwbs", 3)


def test_the_semaphore_of_a_static_probe(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def places(spec: object, pid: int | None = None) -> list[binaries.FilePlace]:
        return [binaries.FilePlace(program, "a:b", 16, "one instant", semaphore=0x40)]

    monkeypatch.setattr(binaries, "places", places)
    (one,) = wish(f"usdt:{program}:a:b", 0).attach
    assert (one.offset, one.counter) == (16, 0x40)


@pytest.mark.parametrize(
    ("release", "arguments", "offset"),
    [
        ("5.10.0-8-amd64", 2, 8),
        ("5.10.0-43-amd64", 1, 0),
        ("5.11.0", None, 0),
        ("6.18.44", None, 0),
        ("6.1.0-13-arm64", None, 0),
        ("7.3", None, 0),
    ],
)
def test_block_requests_by_their_address(
    monkeypatch: pytest.MonkeyPatch, release: str, arguments: int | None, offset: int
) -> None:
    """The first argument of block_rq_issue was the queue once; types say so, where it may be."""

    class Types:
        def tracepoint_arguments(self, name: str) -> int | None:
            assert arguments is not None
            return arguments if name == "block_rq_issue" else None

    monkeypatch.setattr(kernel, "release", lambda: release)
    monkeypatch.setattr(btf, "KernelBTF", Types)
    places = {one.target: one.patch[AT_A] for one in wish("blockio", 0).attach}
    assert places == {"block_rq_issue": offset, "block_rq_complete": 0}


def test_presets_are_all_there() -> None:
    assert set(planner._RAW) == set(target_spec.PRESETS)
    assert set(DEFAULTS) <= set(target_spec.PRESETS)
    for name in target_spec.PRESETS:
        made = wish(name, 0)
        kind = "btf_tracepoint" if name in ("runq", "offcpu") else "raw_tracepoint"
        assert {one.kind for one in made.attach} == {kind}


class Functions:
    """A kernel with three functions."""

    asked: tuple[str, str]

    def function(self, name: str, mechanism: str) -> kernel_functions.KernelFunction:
        self.asked = name, mechanism
        return kernel_functions.KernelFunction(name)

    def expand(self, pattern: str, mechanism: str) -> list[kernel_functions.KernelFunction]:
        self.asked = pattern, mechanism
        return [kernel_functions.KernelFunction(name) for name in ("vfs_a", "vfs_b")]


@pytest.mark.parametrize(
    ("text", "fentry", "mechanism"),
    [
        ("func:vfs_read", True, "fentry"),
        ("func:vfs_read", False, "kprobe"),
        ("kprobe:vfs_read", True, "kprobe"),
        ("fentry:vfs_read", False, "fentry"),
        ("kprobe:vfs_*", True, "kprobe"),
    ],
)
def test_functions_of_the_kernel(
    monkeypatch: pytest.MonkeyPatch, text: str, fentry: bool, mechanism: str
) -> None:
    known = Functions()
    monkeypatch.setattr(kernel_functions, "this_kernel", lambda: known)
    monkeypatch.setattr(planner, "fentry_works", lambda: fentry)
    made = wish(text, 0)
    assert made.mechanism == mechanism
    assert known.asked == (text.partition(":")[2], mechanism)
    names = ["vfs_a", "vfs_b"] if "*" in text else ["vfs_read"]
    assert made.functions == len(names)
    ends = {"kprobe": ("kretprobe", "kprobe"), "fentry": ("fexit", "fentry")}[mechanism]
    expected = [(kind, name) for name in names for kind in ends]
    assert [(one.kind, one.target) for one in made.attach[1:]] == expected
    assert made.attach[0].function == "thread_end"


def test_the_plan_keeps_what_is_wrong_apart(program: str) -> None:
    wanted = ["runq", f"uprobe:{program}:none", f"uprobe:{program}:main", "syscall:raed"]
    plan = LatencyProbe.plan({"targets": wanted, "pid": None})
    targets = plan.facts["targets"]
    assert [(t["spec"], t["slot"]) for t in targets] == [
        ("runq", 0),
        (f"uprobe:{program}:main", 1),
    ]
    assert [spec for spec, _, _ in plan.facts["errors"]] == [wanted[1], wanted[3]]
    assert all(why and fix for _, why, fix in plan.facts["errors"])
    assert {one.group for one in plan.attach} == {0, 1}
    assert plan.calibrate is not None
    # Behind the targets there is one slot more, in which the floor is measured.
    assert plan.defines["PT_HISTS"] == 3
    assert plan.facts["PT_HISTS"] == 3


def test_more_than_the_most_are_told_so() -> None:
    wanted = [f"t:block:{'issue' if n % 2 else 'complete'}" for n in range(MOST_TARGETS + 3)]
    plan = LatencyProbe.plan({"targets": wanted, "pid": None})
    assert len(plan.facts["targets"]) == MOST_TARGETS
    errors = plan.facts["errors"]
    assert len(errors) == 3
    assert all(f"{MOST_TARGETS} targets at once are the most" in why for _, why, _ in errors)


def test_no_targets_are_a_plan_too() -> None:
    plan = LatencyProbe.plan({"targets": [], "pid": None})
    assert list(plan.attach) == []
    assert plan.defines["PT_HISTS"] == 1


@pytest.mark.parametrize("cpus", [1, 2, 3, 16, 64, 512, 4096])
def test_maps_are_bounded_on_machines_of_any_size(cpus: int) -> None:
    sizes = geometry(cpus, MOST_TARGETS)
    assert sizes["PT_ROWS"] & (sizes["PT_ROWS"] - 1) == 0
    assert sizes["PT_ROWS"] >= 128
    assert sizes["PT_SLICES"] <= 16
    assert sizes["PT_SLICES"] * sizes["PT_HISTS"] * 5152 < 16 << 20
    assert sizes["PT_ROWS"] * cpus * 64 <= max(16384, 128 * cpus) * 64


def test_the_floor_is_that_of_new_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """One histogram for all mechanisms, one after the other: each has its own calls only."""
    from probes.core import histogram
    from probes.core.sample import Histogram

    reads = iter(
        [
            Histogram({histogram.index(1000): 100}, 100, 100_000),
            Histogram({histogram.index(1000): 100, histogram.index(5000): 100}, 200, 600_000),
        ]
    )
    called: list[tuple[str, int]] = []

    class Hists:
        def __init__(self, fd: int, slices: int, slots: int) -> None:
            assert slots == 8

        def read(self, slot: int, old: Histogram) -> Histogram:
            assert slot == 7
            return next(reads)

        def close(self) -> None:
            pass

    class Page:
        def __init__(self, fd: int) -> None:
            self.log: list[object] = []

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *values: self.log.append((name, values))

    def call(mechanism: str, attach: object, slot: int, control: object) -> float:
        called.append((mechanism, slot))
        return 7.0

    monkeypatch.setattr(floors, "Histograms", Hists)
    monkeypatch.setattr(floors, "Control", Page)
    monkeypatch.setattr(floors, "_call", call)
    monkeypatch.setattr(os, "dup", lambda fd: fd)
    calibrate = floors.measured(["syscall", "uprobe push", "syscall"], 7)

    def nothing(one: Attach) -> int:
        return -1

    facts = calibrate({"control": 0, "hists": 0}, nothing)
    found = facts["floors"]
    assert facts["outside"] == {"syscall": 7.0, "uprobe push": 7.0}
    assert called == [("syscall", 7), ("uprobe push", 7)]
    assert found["syscall"] == pytest.approx(1000, rel=0.04)
    assert found["uprobe push"] == pytest.approx(5000, rel=0.04)


def test_the_source_compiles_from_headers_of_its_own() -> None:
    text = compiler.source_of("latency/latency.bpf.c")
    assert text.count("struct control {") == 1
    assert '#include "' not in text


def test_user_space_targets_tell_which_file_they_are_in(program: str) -> None:
    status = os.stat(program)
    made = wish(f"uprobe:{program}:main", 0)
    assert made.facts("x", 0)["files"] == [[program, status.st_dev, status.st_ino]]
    assert wish("runq", 0).facts("runq", 0)["files"] == []
