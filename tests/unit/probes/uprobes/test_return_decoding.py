# SPDX-License-Identifier: Apache-2.0
"""What instructions say of how a function is left, on both architectures."""

from __future__ import annotations

import struct

import capstone
import pytest

from probes.core.errors import ProbeError
from probes.symbols import instruction_boundaries
from probes.uprobes.return_decoding import (
    BRANCH,
    BROKEN,
    END,
    INDIRECT,
    JUMP,
    NEVER,
    PROLOGUE,
    RETURN,
    SLOT,
    TABLE,
    UNREACHED,
    Fact,
    Region,
    decode,
    facts,
)

AT = 0x401000


def said(code: bytes, arch: str = "x86_64") -> list[tuple[int, int, int]]:
    """Kind, offset and target of each fact of one function, but for two kinds."""
    found = decode(capstone, [Region(0, AT, code)], arch)
    return [(f.kind, f.at, f.target) for f in found if f.kind not in (PROLOGUE, UNREACHED)]


def x86(text: str) -> bytes:
    return bytes.fromhex(text)


def arm(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


RET, NOP = 0xD65F03C0, 0xD503201F


@pytest.mark.parametrize("code", ["c3", "f3c3", "f2c3", "c20800"])
def test_returns(code: str) -> None:
    assert said(x86("55" + code)) == [(RETURN, 1, 0), (END, 1 + len(code) // 2, NEVER)]


@pytest.mark.parametrize("code", ["cb", "48cf", "ffe0", "ff6018", "ff24c5"])
def test_jumps_to_anywhere(code: str) -> None:
    wanted = TABLE if code == "ff24c5" else INDIRECT
    more = "00104000" if code == "ff24c5" else ""
    found = said(x86(code + more))
    assert found[0] == (wanted, 0, 0x401000 if more else 0)
    assert found[-1] == (END, len(code + more) // 2, NEVER)


def test_jumps_out_and_within() -> None:
    # je +2; jmp out; ret; je out; ret
    found = said(x86("7405 e900010000 c3 0f8400020000 c3"))
    assert found == [
        (JUMP, 2, AT + 0x107),
        (RETURN, 7, 0),
        (BRANCH, 8, AT + 0x20E),
        (RETURN, 14, 0),
        (END, 15, NEVER),
    ]
    # A jump to the very beginning is told, for a probe there sees it.
    assert said(x86("90 ebfd"))[0] == (JUMP, 1, AT)


def test_jumps_by_a_word_of_memory() -> None:
    assert said(x86("ff2500100000"))[0] == (SLOT, 0, AT + 6 + 0x1000)
    assert said(x86("ff25f0ffffff"))[0] == (SLOT, 0, AT + 6 - 0x10)


def test_tables_of_the_compiler() -> None:
    # movslq (%rdx,%rax,4),%rax; add %rdx,%rax; jmp *%rax
    assert said(x86("48630482 4801d0 ffe0")) == [(END, 9, NEVER)]
    # notrack jmp *%rax
    assert said(x86("3effe0")) == [(END, 3, NEVER)]
    # The entry is added to another register than the one that is jumped to.
    assert said(x86("48630482 4801d0 ffe1"))[0] == (INDIRECT, 7, 0)


def test_code_that_contradicts_itself_or_ends_in_nothing() -> None:
    # jmp into the middle of mov
    assert (BROKEN, 0, AT + 3) in said(x86("eb01 b890909090 c3"))
    # je over a lock prefix is what the C library does
    assert BROKEN not in [kind for kind, _, _ in said(x86("7401 f0480fb10a c3"))]
    assert said(x86("90 06 90")) == [(END, 1, 0)]
    assert said(x86("90 90")) == [(END, 2, 0)]
    for last in ("0f0b", "cc", "f4", "e800000000"):
        assert said(x86("90" + last))[-1][2] == NEVER
    # What fills up the space behind is not reached.
    assert said(x86("c3 90 6690 0f1f00"))[-1] == (END, 7, NEVER)


def test_two_parts_of_a_function_are_one() -> None:
    hot, cold = x86("0f84fa0f0000 c3"), x86("e9fbefffff")
    regions = [Region(0, AT, hot), Region(0, AT + 0x1000, cold), Region(1, AT, cold)]
    found = [f for f in decode(capstone, regions, "x86_64") if f.kind in (JUMP, BRANCH)]
    # The jump back leads to the beginning; the other function's leads out of it.
    assert found == [Fact(JUMP, 1, 0, AT), Fact(JUMP, 2, 0, AT - 0x1000)]


def test_early_branches() -> None:
    # cmp 0x10(%r14),%rsp; jbe out; ret
    found = decode(capstone, [Region(0, AT, x86("493b6610 7610 c3"))], "x86_64")
    assert Fact(PROLOGUE, 0, 6, AT + 0x16) in found


def test_arm64() -> None:
    assert said(arm(NOP, RET), "arm64") == [(RETURN, 4, 0), (END, 8, NEVER)]
    # ret x1, retaa, br x1
    for word in (0xD65F0020, 0xD65F0BFF, 0xD61F0020):
        assert said(arm(word), "arm64")[0] == (INDIRECT, 0, 0)
    # b out; b.eq out; cbz x0, out; tbz w0, #0, out
    found = said(arm(0x14000040, 0x54000800, 0xB4000800, 0x36000800, RET), "arm64")
    assert [kind for kind, _, _ in found] == [JUMP, BRANCH, BRANCH, BRANCH, RETURN, END]
    assert [target - AT for _, _, target in found[:4]] == [0x100, 0x104, 0x108, 0x10C]
    # adr x1; add x0, x1, w0, sxtw #2; br x0: a table of the compiler
    assert said(arm(0x10000001, 0x8B20C820, 0xD61F0000), "arm64") == [(END, 12, NEVER)]
    # ldr x27, [x2, x1, lsl #3]; br x27: a table of addresses
    assert said(arm(0xF861785B, 0xD61F0360), "arm64")[0] == (TABLE, 4, 0)
    assert said(arm(NOP), "arm64") == [(END, 4, 0)]


def test_the_child_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    regions = [Region(0, AT, x86("7405 e900010000 c3 ff2500100000"))]
    assert facts(regions, "x86_64") == decode(capstone, regions, "x86_64")
    for answer in ([], [7], [RETURN, 0, 99, 0, 0, 1], [99, 0, 0, 0, 0, 1], [1, 5, 0, 0, 0, 1]):
        monkeypatch.setattr(
            instruction_boundaries, "in_child", lambda decode, most, a=answer: _numbers(a)
        )
        with pytest.raises(ProbeError, match="disassembler"):
            facts(regions, "x86_64")


def _numbers(values: list[int]) -> object:
    from array import array

    return array("I", values)
