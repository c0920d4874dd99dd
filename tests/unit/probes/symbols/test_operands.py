# SPDX-License-Identifier: Apache-2.0
"""Operands of static probes' arguments, as compilers write them, on both architectures."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.symbols import usdt_operands
from probes.symbols.usdt_operands import (
    BASE,
    INDEX,
    LOW,
    MEMORY,
    SIGNED,
    Argument,
    Operand,
    arguments,
)
from tests.paths import INCLUDE

HEADER = (INCLUDE / "operand.h").read_text()


def base(offset: int) -> int:
    return BASE | offset << 16


def index(offset: int, scale: int) -> int:
    return INDEX | offset << 32 | scale << 48


X86 = [
    ("-4@%eax", Operand(4 | SIGNED | base(80), 0)),
    ("8@%r15", Operand(8 | base(0), 0)),
    ("2@%r8w", Operand(2 | base(72), 0)),
    ("1@%sil", Operand(1 | base(104), 0)),
    ("1@%al", Operand(1 | base(80), 0)),
    ("4@$5", Operand(4, 5)),
    ("-8@$-3", Operand(8 | SIGNED, 2**64 - 3)),
    ("8@$0x1f", Operand(8, 31)),
    ("8@(%rdi)", Operand(8 | MEMORY | base(112), 0)),
    ("-4@112(%rsp)", Operand(4 | SIGNED | MEMORY | base(152), 112)),
    ("8@-80(%rbx)", Operand(8 | MEMORY | base(40), 2**64 - 80)),
    ("8@8(%rax,%rbx,8)", Operand(8 | MEMORY | base(80) | index(40, 3), 8)),
    ("4@(,%rcx,4)", Operand(4 | MEMORY | index(88, 2), 0)),
    ("4@counter(%rip)", Operand(4 | MEMORY | base(128), 0x100)),
    ("4@counter+4(%rip)", Operand(4 | MEMORY | base(128), 0x104)),
    ("%rdx", Operand(8 | base(96), 0)),
    ("8f@%xmm0", None),
    ("4@%zz9", None),
    ("1@%ah", None),
    ("4@absent(%rip)", None),
    ("4@counter", None),
    ("4@counter(%rax)", None),
    ("4@$counter", None),
]
ARM = [
    ("-4@w3", Operand(4 | SIGNED | base(24), 0)),
    ("8@x30", Operand(8 | base(240), 0)),
    ("8@sp", Operand(8 | base(248), 0)),
    ("4@5", Operand(4, 5)),
    ("-4@-5", Operand(4 | SIGNED, 2**64 - 5)),
    ("8@[x1]", Operand(8 | MEMORY | base(8), 0)),
    ("8@[sp, 16]", Operand(8 | MEMORY | base(248), 16)),
    ("8@[x29,-24]", Operand(8 | MEMORY | base(232), 2**64 - 24)),
    ("8@[x0, x1]", Operand(8 | MEMORY | base(0) | index(8, 0), 0)),
    ("8@[x0, x1, lsl 3]", Operand(8 | MEMORY | base(0) | index(8, 3), 0)),
    ("8@[x0, w1, sxtw 3]", None),
    ("8@d0", None),
    ("8f@d0", None),
]


@pytest.mark.parametrize(
    ("arch", "text", "operand"),
    [*(("x86_64", *row) for row in X86), *(("arm64", *row) for row in ARM)],
)
def test_operands(arch: str, text: str, operand: Operand | None) -> None:
    (found,) = arguments(text, arch, {"counter": 0x100}.get)
    assert found.operand == operand
    assert found.text == text


def test_many_arguments_keep_their_order() -> None:
    found = arguments("8@%rbp 8@%r12 -4@%eax", "x86_64")
    assert [one.describe() for one in found] == ["u64", "u64", "i32"]
    found = arguments("-4@[sp, 28] 8@[x0, x1, lsl 3] 8f@d0", "arm64")
    assert [one.describe() for one in found] == ["i32", "u64", "f64"]
    assert arguments("", "x86_64") == arguments("  ", "arm64") == []


def test_bits_are_those_of_the_header() -> None:
    bits = dict(re.findall(r"#define HOW_(\w+) \(1ULL << (\d+)\)", HEADER))
    ours = {name: 1 << int(shift) for name, shift in bits.items()}
    assert ours == {
        "SIGNED": SIGNED,
        "RECORD": usdt_operands.RECORD,
        "BASE": BASE,
        "INDEX": INDEX,
        "MEMORY": MEMORY,
        "LOW": LOW,
    }
    shifts = [int(n) for n in re.findall(r"\(\(how\) >> (\d+)", HEADER)]
    assert shifts == [usdt_operands._BASE_AT, usdt_operands._INDEX_AT, usdt_operands._SCALE_AT]


@given(st.text(max_size=60), st.sampled_from(["x86_64", "arm64"]))
def test_any_text_is_read_or_not(text: str, arch: str) -> None:
    """A file may hold anything."""
    for found in arguments(text, arch):
        assert isinstance(found, Argument)
        if found.operand is not None:
            assert 0 <= found.operand.at < 1 << 64
            assert 0 < found.operand.how < 1 << 64
