# SPDX-License-Identifier: Apache-2.0
"""The returns of functions are all known, or it is said why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from probes.core import kernel
from probes.host.open_file import open_file
from probes.symbols.functions import functions
from probes.uprobes import own_returns
from probes.uprobes.own_returns import NotProven, OwnReturns
from tests.unit.elf_file import ADDRESS, CODE_AT, FUNC, GLOBAL, MOVED, ElfFile, Row
from tests.unit.unwind_file import tables

pytestmark = pytest.mark.skipif(kernel.arch() != "x86_64", reason="instructions of x86_64")
BASE = ADDRESS + CODE_AT + MOVED
PUSHED = bytes([0x41, 0x0E, 16])
"""From the second byte on, something is on the stack."""
COLD = bytes([0x0E, 16])
"""It is from the beginning."""


def program(
    tmp_path: Path,
    parts: Sequence[tuple[str, int, str, bytes | None]],
    data: dict[str, tuple[int, bytes]] | None = None,
) -> Path:
    """Functions of a name ("" for none), a place, code, and rows of unwind tables if any."""
    code = bytearray(b"\x90" * 0x800)
    rows: list[Row] = []
    frames = []
    for name, at, text, program_of in parts:
        body = bytes.fromhex(text)
        code[at : at + len(body)] = body
        if name:
            rows.append((name, FUNC, GLOBAL, at, len(body)))
        if program_of is not None:
            frames.append((BASE + at, len(body), program_of))
    path = tmp_path / "program"
    more = {**tables(sorted(frames)), **(data or {})}
    path.write_bytes(ElfFile(symtab=rows, code=bytes(code), tables=more).build())
    return path


def of(path: Path, name: str = "f", go: bool = False) -> OwnReturns | str:
    """Places of a function counted from the code's beginning, or why they are not known."""
    file = open_file(str(path))
    (found,) = own_returns.find(file, [functions(file)[name]], go)
    if isinstance(found, NotProven):
        return str(found)
    return OwnReturns(
        found.entry - CODE_AT,
        tuple(at - CODE_AT for at in found.ends),
        tuple(at - CODE_AT for at in found.shared),
    )


def test_every_return(tmp_path: Path) -> None:
    # je +1; ret; ret
    assert of(program(tmp_path, [("f", 0, "7401 c3 c3", None)])) == OwnReturns(0, (2, 3))


def test_a_jump_to_another_function_is_an_end(tmp_path: Path) -> None:
    parts = [("f", 0, "90 e9fa000000", b""), ("g", 0x100, "c3", b"")]
    path = program(tmp_path, parts)
    assert of(path) == OwnReturns(0, (1,))
    # Nobody knows where the stack is, or it is not as it was: something else ends there.
    path = program(tmp_path, [("f", 0, "90 e9fa000000", None), ("g", 0x100, "c3", b"")])
    assert "the jump at +0x1 may lead anywhere" in of(path)
    path = program(tmp_path, [("f", 0, "90 e9fa000000", PUSHED), ("g", 0x100, "c3", b"")])
    assert "the jump at +0x1 may lead anywhere" in of(path)


def test_a_jump_to_another_function_under_a_condition(tmp_path: Path) -> None:
    path = program(tmp_path, [("f", 0, "0f84fa000000 c3", b""), ("g", 0x100, "c3", b"")])
    assert of(path) == "it jumps to another function under a condition"


def test_rarely_run_parts_belong_to_the_function(tmp_path: Path) -> None:
    # je to the part; ret; the part: ret
    parts = [("f", 0, "0f84fa000000 c3", b""), ("f.cold", 0x100, "90 c3", b"")]
    assert of(program(tmp_path, parts)) == OwnReturns(0, (6, 0x101))
    # The same in a stripped file: the tables say that the stack is another one there.
    parts = [("f", 0, "0f84fa000000 c3", b""), ("", 0x100, "90 c3", COLD)]
    assert of(program(tmp_path, parts)) == OwnReturns(0, (6, 0x101))
    # Or that it is not: then it may be another function, and others may return there.
    parts = [("f", 0, "0f84fa000000 c3", b""), ("", 0x100, "90 c3", b"")]
    assert of(program(tmp_path, parts)) == OwnReturns(0, (6,), (0x101,))


def test_indirect_jumps(tmp_path: Path) -> None:
    # With something on the stack it is a table of the function's own.
    path = program(tmp_path, [("f", 0, "55 7404 ffe0 90 90 5d c3", PUSHED)])
    assert of(path) == OwnReturns(0, (8,))
    for rows in (b"", None):
        path = program(tmp_path, [("f", 0, "55 7402 ffe0 c3", rows)])
        assert of(path) == "the jump at +0x3 may lead anywhere"
    # A word of memory holds where a function of another library is.
    path = program(tmp_path, [("f", 0, "90 ff2500100000", b"")])
    assert of(path) == OwnReturns(0, (1,))


def test_what_nothing_leads_to_may_be_data(tmp_path: Path) -> None:
    """A breakpoint in data would change it; its bytes can look like a return."""
    # jmp over bytes of data; mov; ret
    path = program(tmp_path, [("f", 0, "eb05 11c3c32233 b801000000 c3", b"")])
    assert of(path) == "nothing is known to lead to the end at +0x4"
    # A call of what is within the function does not return.
    path = program(tmp_path, [("f", 0, "e802000000 c3 90 c3", b"")])
    assert of(path) == "nothing is known to lead to the end at +0x5"
    # A jump out of data, which ends the function as well.
    path = program(tmp_path, [("f", 0, "c3 e9fa000000", b""), ("g", 0x100, "c3", b"")])
    assert of(path) == "nothing is known to lead to the end at +0x1"


@pytest.mark.parametrize(("entry", "inside"), [(BASE + 9, True), (BASE + 0x100, False), (0, False)])
def test_tables_of_addresses(tmp_path: Path, entry: int, inside: bool) -> None:
    # je to the end; jmp *table(,%rax,8); ret
    at = BASE + 0x400
    code = f"7407 ff24c5{at.to_bytes(4, 'little').hex()} c3"
    words = entry.to_bytes(8, "little").hex()
    found = of(program(tmp_path, [("f", 0, code, b""), ("", 0x400, words, None)]))
    assert found == (OwnReturns(0, (9,)) if inside else "the jump at +0x2 may lead anywhere")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("90 ebfd", "jumps to its own beginning"),
        ("eb01 b890909090 c3", "instructions overlap"),
        ("90 06 90 c3", "not understood"),
        ("c3 31c0", "goes on behind its end"),
        ("0f0b", "does not return"),
        ("e900100000", "not in the file"),
        ("eb70 c3", "no function's beginning"),
    ],
)
def test_what_is_not_proven(tmp_path: Path, code: str, why: str) -> None:
    assert why in of(program(tmp_path, [("f", 0, code, b"")]))


def test_sizes(tmp_path: Path) -> None:
    path = tmp_path / "program"
    unsized: list[Row] = [("f", FUNC, GLOBAL, 0, 0)]
    path.write_bytes(ElfFile(symtab=unsized, code=b"\xc3").build())
    assert of(path) == "its size is not known"
    known = tables([(BASE, 1, b"")])
    path.write_bytes(ElfFile(symtab=unsized, code=b"\xc3", tables=known).build())
    assert of(path) == OwnReturns(0, (0,))
    large: list[Row] = [("f", FUNC, GLOBAL, 0, 1 << 30)]
    path.write_bytes(ElfFile(symtab=large, code=b"\xc3").build())
    assert of(path) == "its code is too large to be decoded"
    behind: list[Row] = [("f", FUNC, GLOBAL, 0, 1 << 17)]
    path.write_bytes(ElfFile(symtab=behind, code=b"\xc3").build())
    assert of(path) == "its code is not in the file"
    # je to the next one; ret
    code = b"\x74\x01\xc3" * 600 + b"\xc3"
    many: list[Row] = [("f", FUNC, GLOBAL, 0, len(code))]
    path.write_bytes(ElfFile(symtab=many, code=code).build())
    assert of(path) == "it returns at 601 places"


def test_a_go_function_begins_behind_its_check_for_space(tmp_path: Path) -> None:
    # cmp 0x10(%r14),%rsp; jbe slow; push; nops; pop; ret; slow: call; jmp to the beginning
    code = "493b6610 7606 55 90 90 90 5d c3 e8ffff0000 ebed"
    path = program(tmp_path, [("main.f", 0, code, None)])
    assert of(path, "main.f", go=True) == OwnReturns(6, (11,))
    # In any other file that is a loop which looks like calls.
    assert "its own beginning" in of(path, "main.f")
    # Without the check, so is it in Go.
    path = program(tmp_path, [("main.f", 0, "90 90 c3 ebfb", None)])
    assert "its own beginning" in of(path, "main.f", go=True)


def test_several_functions_at_once(tmp_path: Path) -> None:
    parts = [("f", 0, "c3", None), ("g", 0x10, "ffe0", None), ("h", 0x20, "90 c3", None)]
    file = open_file(str(program(tmp_path, parts)))
    known = functions(file)
    found = own_returns.find(file, [known[name] for name in "fgh"])
    ends = [one.ends if isinstance(one, OwnReturns) else None for one in found]
    assert ends == [(CODE_AT,), None, (CODE_AT + 0x21,)]
