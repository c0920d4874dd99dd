# SPDX-License-Identifier: Apache-2.0
"""What unwind tables say of the stack pointer, and that no table can do harm."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from probes.core import kernel
from probes.symbols.elf import Elf
from probes.symbols.functions import function
from probes.symbols.unwind_tables import Frame, UnwindTables
from tests.unit.elf_file import ElfFile
from tests.unit.unwind_file import ARM_FIRST, X86_FIRST, common, tables

FIRST = X86_FIRST if kernel.arch() == "x86_64" else ARM_FIRST
FRAME = bytes([0x41, 0x0E, 16, 0x86, 2, 0x43, 0x0D, 6, 0x50, 0x0C, FIRST[1], FIRST[2]])
"""One byte on: 16 more on the stack; 3 on: by the frame pointer; 16 on: as at the beginning."""


def frame(tmp_path: Path, address: int, **more: object) -> Frame | None:
    functions = [(0x403000, 64, FRAME), (0x403040, 16, bytes([0x0E, 64]))]
    head = common(FIRST) if not more else common(FIRST, **more)  # type: ignore[arg-type]
    letters = 1
    path = tmp_path / "file"
    path.write_bytes(ElfFile(tables=tables(functions, head, letters)).build())
    with Elf(str(path)) as elf:
        return UnwindTables(elf).frame(address)


def test_rows_of_a_function(tmp_path: Path) -> None:
    found = frame(tmp_path, 0x403008)
    assert found is not None
    assert (found.address, found.size, found.begins_called) == (0x403000, 64, True)
    called = {at: found.as_called(0x403000 + at) for at in (0, 1, 3, 4, 19, 20, 63)}
    assert called == {0: True, 1: False, 3: False, 4: False, 19: False, 20: True, 63: True}


def test_a_part_that_is_jumped_to(tmp_path: Path) -> None:
    found = frame(tmp_path, 0x403041)
    assert found is not None
    assert (found.address, found.begins_called) == (0x403040, False)


def test_what_no_entry_covers(tmp_path: Path) -> None:
    assert frame(tmp_path, 0x402FFF) is None
    assert frame(tmp_path, 0x403050) is None


def test_a_personality_is_skipped_and_an_unknown_letter_is_not_guessed(tmp_path: Path) -> None:
    # Its encoding (four bytes from here) and the bytes, and one for the handlers' encoding.
    found = frame(tmp_path, 0x403000, augmentation=b"zPLR", more=b"\x9b\1\2\3\4\x1b")
    assert found is not None
    assert found.size == 64
    assert frame(tmp_path, 0x403000, augmentation=b"zXR", more=b"\x9b") is None


def test_a_state_that_is_kept_and_comes_back(tmp_path: Path) -> None:
    program = bytes([0x41, 0x0E, 32, 0x41, 0x0A, 0x0C, FIRST[1], FIRST[2], 0x41, 0x0B])
    path = tmp_path / "file"
    path.write_bytes(ElfFile(tables=tables([(0x403000, 16, program)], common(FIRST))).build())
    with Elf(str(path)) as elf:
        found = UnwindTables(elf).frame(0x403000)
    assert found is not None
    assert [found.as_called(0x403000 + at) for at in range(4)] == [True, False, True, False]


def test_damaged_tables_are_unknown(tmp_path: Path) -> None:
    chance = random.Random(3)
    functions = [(0x403000 + 16 * at, 16, FRAME) for at in range(8)]
    good = tables(functions, common(FIRST))
    path = tmp_path / "file"
    for _ in range(300):
        damaged = {}
        for name, (address, data) in good.items():
            changed = bytearray(data)
            for _ in range(chance.randrange(6)):
                changed[chance.randrange(len(changed))] = chance.getrandbits(8)
            cut = len(changed) if chance.random() < 0.8 else chance.randrange(len(changed))
            damaged[name] = address, bytes(changed[:cut])
        path.write_bytes(ElfFile(tables=damaged).build())
        with Elf(str(path)) as elf:
            known = UnwindTables(elf)
            for address in range(0x402FF8, 0x403090, 8):
                found = known.frame(address)
                assert found is None or found.address <= address < found.address + found.size


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
@pytest.mark.skipif(kernel.arch() != "x86_64", reason="its assembly is x86_64's")
def test_tables_of_a_compiler(tmp_path: Path) -> None:
    source = tmp_path / "f.c"
    source.write_text("int g(int *); int f(int x) { int y = x; return g(&y) + y; }")
    library = tmp_path / "f.so"
    subprocess.run(
        ["gcc", "-O1", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60
    )
    found = function(str(library), "f")
    with Elf(str(library)) as elf:
        known = UnwindTables(elf).frame(found.offset)
    assert known is not None
    assert (known.address, known.size) == (found.offset, found.size)
    last = known.address + known.size - 1
    middle = known.address + known.size // 2
    assert [known.as_called(at) for at in (known.address, middle, last)] == [True, False, True]
