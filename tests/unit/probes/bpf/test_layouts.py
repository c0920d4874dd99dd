# SPDX-License-Identifier: Apache-2.0
"""Structures that Python reads are those of the BPF programs, by clang's own account."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from probes.bpf.compiler import source_of
from probes.bpf.layouts import EXIT_EVENT, LAYOUTS, ROW, StructLayout
from tests.tooling import compile_commands
from tests.tooling.compile_commands import ARM
from tests.unit.test_bpf_syntax import SOURCES, needs_clang

pytestmark = needs_clang


@pytest.fixture(scope="module")
def commands() -> dict[str, list[str]]:
    return compile_commands.commands()


def defines(source: str, layout: StructLayout) -> bool:
    return f"struct {layout.name} {{" in source_of(source)


def checks(layout: StructLayout) -> str:
    """C that compiles only where the structure is as stated."""
    name = f"struct {layout.name}"
    lines = [
        f'_Static_assert(__builtin_offsetof({name}, {field}) == {at}, "{field} at {at}");'
        for field, at in layout.offsets.items()
    ]
    lines += [
        f"_Static_assert(sizeof((({name} *)0)->{field}) == {after - at}, "
        f'"{field} has {after - at} bytes");'
        for (field, at), after in zip(
            layout.offsets.items(), [*list(layout.offsets.values())[1:], layout.size], strict=True
        )
    ]
    if not layout.open_end:
        lines.append(f'_Static_assert(sizeof({name}) == {layout.size}, "{layout.size} bytes");')
    return "\n".join(lines) + "\n"


def complaints(
    command: list[str], layout: StructLayout, folder: Path, extra: tuple[str, ...] = ()
) -> str:
    """What clang says of a source with checks of the layout at its end."""
    *flags, file = command
    macros = {flag.partition("=")[0] for flag in extra}
    kept = [flag for flag in flags if flag.partition("=")[0] not in macros]
    checked = folder / Path(file).name
    checked.write_text(Path(file).read_text("utf-8") + checks(layout), "utf-8")
    done = subprocess.run(
        [*kept, *extra, str(checked)], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("arch", [(), ARM], ids=["x86_64", "arm64"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_it_is_the_programs(
    commands: dict[str, list[str]], layout: StructLayout, arch: tuple[str, ...], tmp_path: Path
) -> None:
    sources = [source for source in SOURCES if defines(source, layout)]
    assert sources
    for source in sources:
        assert complaints(commands[source], layout, tmp_path, arch) == ""


@pytest.mark.parametrize(
    "fields",
    [
        "type:I pid:I time:Q started:Q begun:Q code:I pad:I comm:16s",
        "type:I pid:I time:Q begun:Q started:Q code:Q comm:16s",
        "type:I pid:I time:Q begun:Q started:Q code:I pad:I comm:8s",
        "type:I pid:I time:Q begun:Q started:Q code:I pad:I",
    ],
    ids=["another order", "a wider field", "a narrower field", "a missing field"],
)
def test_a_difference_is_found(commands: dict[str, list[str]], fields: str, tmp_path: Path) -> None:
    wrong = StructLayout(EXIT_EVENT.name, EXIT_EVENT.file, fields)
    assert "error: static" in complaints(commands["execs/execs.bpf.c"], wrong, tmp_path)


def test_picked_fields_are_those_of_the_whole() -> None:
    data = bytes(range(ROW.size))
    whole = dict(zip(ROW.formats, ROW.struct.unpack(data)[:6], strict=False))
    count, start, comm = ROW.picked("count", "start", "comm").unpack(data)
    assert (count, start, comm) == (whole["count"], whole["start"], whole["comm"])
    assert ROW.picked("count", "start").size == ROW.size
