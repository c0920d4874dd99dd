# SPDX-License-Identifier: Apache-2.0
"""Where a return probe could harm a program, and what takes its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.host.open_file import open_file
from probes.latency.planner import HOW_A, wish
from probes.latency.probe import LatencyProbe
from probes.latency.requests import wishes_of
from probes.symbols.binaries import places
from probes.symbols.target_spec import parse
from probes.uprobes import harm_trials, return_hazards, timing_ends
from probes.uprobes.own_returns import NotProven
from probes.uprobes.timing_ends import CallEnds, choose
from tests.unit.elf_file import CODE_AT, FUNC, GLOBAL, OBJECT, ElfFile, Row
from tui.cli import _probe_options
from tui.settings.options import resolve

Make = Callable[..., str]
RETURN = b"\xc3" if kernel.arch() == "x86_64" else b"\xc0\x03\x5f\xd6"
NOP = b"\x90" if kernel.arch() == "x86_64" else b"\x1f\x20\x03\xd5"
NOWHERE = b"\xff\xe0" if kernel.arch() == "x86_64" else b"\x00\x00\x1f\xd6"
"""A jump to where a register says."""
HANDLERS = {".gcc_except_table": (0x700000, b"x")}
ROWS: list[Row] = [
    (name, FUNC, GLOBAL, 0x10 * at, 8)
    for at, name in enumerate(("f", "main.go", "qsort", "_setjmp", "dlsym", "g"))
]


@pytest.fixture(autouse=True)
def quiet_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel whose return probes are no system calls that filters see."""
    monkeypatch.setattr(kernel, "version", lambda: (6, 18, 0))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a file whose functions end in a return, and "g" in a jump to anywhere."""

    def made(*names: str, **more: Any) -> str:
        rows = [*ROWS, *((name, OBJECT, GLOBAL, None, 8) for name in names)]
        block = RETURN + (NOP * 16)[: 16 - len(RETURN)]
        code = block * 5 + (NOWHERE * 8)[:8]
        path = tmp_path / "file"
        path.write_bytes(ElfFile(symtab=rows, code=code, **more).build())
        return str(path)

    return made


def chosen(path: str, symbol: str = "f", force: bool = False) -> CallEnds:
    return choose(places(parse(f"uprobe:{path}:{symbol}")), force)


def test_c_is_timed_by_a_return_probe(make: Make) -> None:
    assert chosen(make()).how == "return probe"
    assert chosen(make(needed=["libc.so.6", "libz.so.1"])).how == "return probe"
    # A C program's own handlers tidy up when a thread is cancelled.
    assert chosen(make("__gcc_personality_v0", tables=HANDLERS)).how == "return probe"


@pytest.mark.parametrize(
    "more",
    [
        {"tables": HANDLERS},
        {"needed": ["libc.so.6", "libstdc++.so.6"]},
        {"needed": ["libgcc_s.so.1"]},
        {"needed": ["libc++.so.1.0"]},
    ],
)
def test_what_an_exception_may_leave_is_timed_at_its_own_returns(
    make: Make, more: dict[str, Any]
) -> None:
    found = chosen(make(**more))
    assert found.how == "own returns"
    assert found.ends[0].offset == CODE_AT
    assert found.begins[0].offset == CODE_AT


@pytest.mark.parametrize("name", ["__cxa_throw", "__gxx_personality_v0", "rust_eh_personality"])
def test_names_tell_of_a_runtime(make: Make, name: str) -> None:
    path = make(name)
    assert chosen(path).how == "own returns"
    assert return_hazards.of(open_file(path), "f") == return_hazards.EXCEPTION


def test_stacks_that_are_switched(make: Make) -> None:
    path = make("makecontext")
    assert chosen(path).how == "own returns"
    assert return_hazards.of(open_file(path), "f") == return_hazards.STACKS


def test_the_c_library(make: Make) -> None:
    path = make("makecontext", tables=HANDLERS, soname="libc.so.6")
    assert chosen(path).how == "return probe"
    assert chosen(path, "qsort").how == "own returns"
    assert chosen(path, "_setjmp").how == "own returns"
    assert chosen(path, "dlsym").how == "own returns"


def test_what_is_not_proven_is_counted_and_can_be_forced(make: Make) -> None:
    path = make("__cxa_throw")
    found = chosen(path, "g")
    assert (found.how, found.ends) == ("counted", ())
    assert found.why is not None
    assert found.why.startswith(
        "counted only: an exception through it would abort the program (the jump at +"
    )
    assert found.fix == "--force-timing if you know that none comes"
    assert chosen(path, "g", force=True).how == "return probe"
    # In C it is timed.
    assert chosen(make(), "g").how == "return probe"


def test_of_a_wildcard_the_proven_are_timed(make: Make) -> None:
    path = make("__cxa_throw")
    found = chosen(path, "?")
    assert (found.how, [p.name for p in found.begins]) == ("own returns", ["f"])
    assert [p.name for p in found.counted] == ["g"]
    assert (found.why or "").startswith(
        "timed 1 of 2 functions; 1 counted only: g: an exception through it would abort"
    )
    assert found.fix == "--force-timing if you know that none comes"
    made = wish(f"uprobe:{path}:?", 0)
    assert (made.functions, made.counts_only, made.why) == (2, False, found.why)
    assert made.attach[-1].function == "untimed"
    # Within the budget all of them are counted alike.
    counted = wish(f"uprobe:{path}:?", 0, counted=True)
    assert [one.function for one in counted.attach] == ["event", "event"]
    forced = chosen(path, "?", force=True)
    assert (forced.how, forced.counted, forced.why) == ("return probe", (), None)


def test_a_first_instruction_costs_its_wildcard_nothing(make: Make) -> None:
    path = make()
    place = places(parse(f"uprobe:{path}:f"))[0]
    start = replace(place, name="_start", offset=place.offset + 16, no_return="it never returns")
    found = choose([place, start])
    assert (found.how, found.begins, found.counted) == ("return probe", (place,), (start,))
    assert found.why == "timed 1 of 2 functions; 1 counted only: _start: it never returns"
    assert choose([start]).why == "counted only: it never returns"


def test_nobody_can_force_what_is_certain_to_harm(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make()
    assert chosen(path, "_setjmp", force=True).how == "own returns"
    unknown = NotProven("it is not known")
    monkeypatch.setattr(timing_ends, "_returns", lambda places, go: [unknown] * len(places))
    found = chosen(path, "_setjmp", force=True)
    assert (found.how, found.fix) == ("counted", None)
    go = make(extra=[".go.buildinfo"])
    assert chosen(go, "main.go", force=True).how == "counted"


@pytest.mark.parametrize(
    ("version", "harmless", "how"),
    [
        ((6, 10, 9), False, "return probe"),
        ((6, 11, 0), False, "own returns"),
        ((6, 12, 60), True, "return probe"),
        ((6, 14, 0), False, "return probe"),
    ],
)
def test_kernels_that_end_filtered_processes(
    make: Make,
    version: tuple[int, int, int],
    harmless: bool,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel, "version", lambda: version)
    monkeypatch.setattr(harm_trials, "harmless", lambda trial: harmless)
    path = make()
    assert chosen(path).how == how
    if how == "own returns":
        found = chosen(path, "g")
        assert "filter system calls (seccomp)" in (found.why or "")
        assert found.fix == "--force-timing if you know that it does not happen"


def build_info(version: bytes, flags: int = 2) -> dict[str, tuple[int, bytes]]:
    head = b"\xff Go buildinf:\x08" + bytes([flags]) + bytes(16)
    return {".go.buildinfo": (0x700000, head + bytes([len(version)]) + version + b"\0\0")}


@pytest.mark.parametrize(
    ("version", "flags", "timed"),
    [(b"go1.18", 2, True), (b"go1.24.3", 2, True), (b"go1.17.9", 2, False), (b"go1.18", 0, False)],
)
def test_go(make: Make, version: bytes, flags: int, timed: bool) -> None:
    path = make(tables=build_info(version, flags))
    found = chosen(path, "main.go")
    assert found.how == ("goroutine" if timed else "counted")
    if not timed:
        assert "a return probe would crash Go" in (found.why or "")
    # A C function of the program is on a stack that stays where it is.
    assert chosen(path, "f").how == "own returns"
    every = chosen(path, "*")
    assert every.how == ("goroutine" if timed else "counted")
    if timed:
        assert [p.name for p in every.begins] == ["main.go"]
        assert "f" in [p.name for p in every.counted]
        assert "of Go" in (every.why or "")


def test_programs_of_each_way(make: Make) -> None:
    def programs(path: str, symbol: str, **more: bool) -> list[tuple[str, str]]:
        made = wish(f"uprobe:{path}:{symbol}", 0, **more)
        return [(one.kind, one.function) for one in made.attach]

    thread = ("raw_tracepoint", "thread_end")
    path = make("__cxa_throw")
    own = programs(path, "f")
    assert own[0] == thread
    assert set(own[1:-1]) == {("uprobe", "own_leave")}
    assert own[-1] == ("uprobe", "own_enter")
    assert wish(f"uprobe:{path}:f", 0).floor.endswith(" to its own return")
    assert programs(path, "g") == [("uprobe", "event")]
    assert programs(path, "g", force=True)[1:] == [
        ("uretprobe", "function_leave"),
        ("uprobe", "function_enter"),
    ]
    # Within the budget the calls of one that is timed are counted where they begin.
    assert programs(path, "f", counted=True) == [("uprobe", "event")]
    go = programs(make(tables=build_info(b"go1.19")), "main.go")
    assert set(go) == {("uprobe", "go_leave"), ("uprobe", "go_enter")}


def test_shared_ends_are_told_to_the_program(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make("__cxa_throw")
    found = chosen(path)
    monkeypatch.setattr(
        timing_ends, "choose", lambda *_: CallEnds("own returns", found.begins, (), found.ends)
    )
    made = wish(f"uprobe:{path}:f", 0)
    leaves = [one for one in made.attach if one.function == "own_leave"]
    assert {one.patch[HOW_A] for one in leaves} == {1}


def test_who_forces_says_so_once(make: Make) -> None:
    typed = {"force-timing": True, "function": [f"uprobe:{make('__cxa_throw')}:g"]}
    chosen_options = _probe_options(resolve(typed, {}, live=True))["latency"]
    probe = LatencyProbe()
    for option, value in chosen_options.items():
        probe.set_option(option, value)
    for force in (True, False):
        probe.set_option("force", force)
        params = probe.params()
        assert params["force"] is force
        (found,) = wishes_of(params).wishes
        assert found.counts_only is not force
    with pytest.raises(ProbeError, match="is not true or false"):
        probe.set_option("force", "yes")
    assert "force" not in _probe_options(resolve({}, {}, live=True)).get("latency", {})
