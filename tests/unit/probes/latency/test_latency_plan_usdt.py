# SPDX-License-Identifier: Apache-2.0
"""From targets with arguments of static probes to programs, with files that the test makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.latency.planner import AT_A, AT_TEXT, HOW_A, HOW_TEXT, wish
from probes.symbols.usdt_operands import SIGNED
from tests.unit.elf_file import ElfFile, usdt_note


@pytest.fixture
def carrying(tmp_path: Path) -> str:
    """An ELF file whose static probes carry arguments, one of them at two places."""
    constants = "4@$7" if kernel.arch() == "x86_64" else "4@7"
    notes = usdt_note("app", "begin", 0x80, f"{constants} 8f@nowhere")
    notes += usdt_note("app", "end", 0x90, f"{constants} -8{constants[1:-1]}3")
    notes += usdt_note("app", "end", 0xA0, f"-{constants} -8{constants[1:-1]}4")
    path = tmp_path / "carrying"
    path.write_bytes(ElfFile(notes=notes).build())
    return str(path)


def test_each_place_of_a_static_probe_has_its_own_arguments(carrying: str) -> None:
    made = wish(f"usdt:{carrying}:app:end@arg1,str(arg0)", 0)
    assert [one.function for one in made.attach] == ["value_event", "value_event"]
    places = [(one.patch[HOW_A], one.patch[AT_A]) for one in made.attach]
    assert places == [(SIGNED | 8, 3), (SIGNED | 8, 4)]
    assert [one.patch[HOW_TEXT] for one in made.attach] == [4, SIGNED | 4]
    assert {one.patch[AT_TEXT] for one in made.attach} == {7}
    assert (made.unit, made.by_text, made.counts_only) == ("", True, False)


def test_a_pair_of_static_probes_joined_by_arguments(carrying: str) -> None:
    made = wish(f"usdt:{carrying}:app:begin,usdt:{carrying}:app:end@arg0", 0)
    assert [one.function for one in made.attach] == ["pair_end", "pair_end", "pair_begin"]
    assert (made.unit, made.by_text) == ("ns", False)


def test_the_text_is_read_at_the_end_of_a_pair(carrying: str) -> None:
    made = wish(f"usdt:{carrying}:app:begin,usdt:{carrying}:app:end@str(arg0)", 0)
    texts = {one.function: one.patch[HOW_TEXT] for one in made.attach}
    assert texts == {"nest_thread_end": 0, "nest_end": SIGNED | 4, "nest_begin": 0}
    assert made.by_text


@pytest.mark.parametrize(
    ("argument", "why", "fix"),
    [
        ("arg2", "has no arg2", "choose from arg0 u32, arg1 f64"),
        ("arg1", "is a floating-point number", "name another argument"),
    ],
)
def test_arguments_that_cannot_be_read(carrying: str, argument: str, why: str, fix: str) -> None:
    with pytest.raises(ProbeError, match=why) as caught:
        wish(f"usdt:{carrying}:app:begin@{argument}", 0)
    assert fix in caught.value.fix
