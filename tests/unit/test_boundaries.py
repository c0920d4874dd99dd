# SPDX-License-Identifier: Apache-2.0
"""Places in programs: only function starts, proven instructions, and nops of static probes."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes import boundaries, kernel
from probes.base import ProbeError
from probes.binaries import places
from probes.boundaries import decoded
from probes.file_access import Asker, for_clients, set_asker
from probes.specs import parse
from tests.unit.elf_file import ADDRESS, CODE_AT, FUNC, GLOBAL, MOVED, ElfFile, Row, usdt_note

x86 = pytest.mark.skipif(kernel.arch() != "x86_64", reason="these are instructions of x86_64")
BASE = ADDRESS + CODE_AT + MOVED

# push %rbp; mov %rsp,%rbp; mov $0x12345678,%eax; jmp over two bytes; (2 bytes); pop %rbp; ret
CODE = bytes.fromhex("55 4889e5 b878563412 eb02 9090 5d c3")
STARTS = [0, 1, 4, 9, 11, 12, 13, 14]


@pytest.fixture(autouse=True)
def policy() -> Iterator[None]:
    """Each test starts with this process's own rights."""
    yield
    set_asker(Asker())


def program(
    tmp_path: Path, code: bytes, symbols: list[Row] | None = None, notes: bytes = b""
) -> str:
    path = tmp_path / "program"
    rows: list[Row] = symbols or [("f", FUNC, GLOBAL, 0, len(code))]
    path.write_bytes(ElfFile(symtab=rows, code=code, notes=notes).build())
    return str(path)


@x86
@pytest.mark.parametrize("offset", range(1, len(CODE)))
def test_only_instructions_that_decoding_meets(tmp_path: Path, offset: int) -> None:
    path = program(tmp_path, CODE)
    for spec in (f"uprobe:{path}:f+{offset}", f"uprobe:{path}:{BASE + offset:#x}"):
        if offset in STARTS:
            (place,) = places(parse(spec))
            assert place.offset == CODE_AT + offset
            assert place.no_return
        else:
            with pytest.raises(ProbeError, match=r"no instruction of .* is proven to begin"):
                places(parse(spec))


@x86
def test_nothing_behind_what_is_no_instruction(tmp_path: Path) -> None:
    # nop; an opcode that x86_64 does not have; nop
    path = program(tmp_path, bytes.fromhex("90 06 90 90"))
    assert places(parse(f"uprobe:{path}:f"))
    for offset in (1, 2, 3):
        with pytest.raises(ProbeError, match="is proven to begin"):
            places(parse(f"uprobe:{path}:f+{offset}"))


@x86
def test_data_between_instructions_is_noticed_by_a_jump_into_it(tmp_path: Path) -> None:
    # jmp 3; one byte of data that begins a five-byte instruction; nop; nop; nop; nop; ret
    path = program(tmp_path, bytes.fromhex("eb01 b8 90909090 c3"))
    with pytest.raises(ProbeError, match="is proven to begin"):
        places(parse(f"uprobe:{path}:f+7"))
    # je over a lock prefix: what the C library does where there is one thread
    path = program(tmp_path, bytes.fromhex("7401 f0480fb10a c3"))
    assert places(parse(f"uprobe:{path}:f+7"))


def test_addresses_that_no_function_covers(tmp_path: Path) -> None:
    symbols: list[Row] = [("f", FUNC, GLOBAL, 0x10, 16), ("g", FUNC, GLOBAL, 0x40, 0)]
    path = program(tmp_path, b"", symbols)
    assert places(parse(f"uprobe:{path}:{BASE + 0x40:#x}"))[0].name == "g"
    for address in (BASE, BASE + 0x20, BASE + 0x44):
        with pytest.raises(ProbeError, match="has no function around"):
            places(parse(f"uprobe:{path}:{address:#x}"))
    with pytest.raises(ProbeError, match="no function of a known size"):
        places(parse(f"uprobe:{path}:g+4"))
    with pytest.raises(ProbeError, match="has nothing at address"):
        places(parse(f"uprobe:{path}:0x10"))


def test_clients_of_an_agent_name_functions_only(tmp_path: Path) -> None:
    path = program(tmp_path, b"")
    path_of_all = tmp_path / "all"
    os.rename(path, path_of_all)
    rows: list[Row] = [("f", FUNC, GLOBAL, 0, 16)]
    path_of_all.write_bytes(ElfFile(symtab=rows).build())
    set_asker(Asker(offsets=False))
    assert places(parse(f"uprobe:{path_of_all}:f"))
    for place in ("f+4", f"{BASE + 4:#x}"):
        with pytest.raises(ProbeError, match="may not be traced here") as caught:
            places(parse(f"uprobe:{path_of_all}:{place}"))
        assert "--allow-offsets" in caught.value.fix
    assert not for_clients().offsets
    assert for_clients(offsets=True).offsets


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")
def test_the_child_that_decodes_has_no_privileges(monkeypatch: pytest.MonkeyPatch) -> None:
    def spy(capstone: object, code: bytes) -> bytes:
        status = Path("/proc/self/status").read_text()
        words = dict(line.split(":", 1) for line in status.splitlines())
        numbers = [int(words["Uid"].split()[1]), int(words["CapEff"], 16), int(words["CapPrm"], 16)]
        numbers += [int(words["NoNewPrivs"]), len(os.listdir("/proc/self/fd"))]
        return struct.pack("<7I", *numbers, 0xFFFFFFFF, 0xFFFFFFFF)

    monkeypatch.setattr(boundaries, "_decode", spy)
    reading, writing = os.pipe()
    try:
        answer: list[int] = []
        monkeypatch.setattr(boundaries, "frozenset", lambda row: answer.extend(row), raising=False)
        decoded(b"\x90" * 64)
    finally:
        os.close(reading)
        os.close(writing)
    # 0, 1, 2, the pipe, and the directory that is being listed
    assert answer == [65534, 0, 0, 1, 5]


@pytest.mark.parametrize("how", ["dies", "hangs", "babbles", "eats"])
def test_a_child_that_misbehaves_is_ended_and_answers_nothing(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def misbehave(capstone: object, code: bytes) -> bytes:
        if how == "dies":
            os.abort()
        while how == "hangs":
            pass
        if how == "eats":
            return b"".join([bytes(1 << 30) for _ in range(64)])
        return bytes(1 << 20)

    monkeypatch.setattr(boundaries, "_decode", misbehave)
    monkeypatch.setattr(boundaries, "SECONDS", 0.5)
    with pytest.raises(ProbeError, match=r"without an answer|took longer"):
        decoded(b"\x90" * 64)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_static_probe_needs_its_nop(tmp_path: Path) -> None:
    notes = usdt_note("p", "good", 0) + usdt_note("p", "bad", 8)
    code = ElfFile().build()[CODE_AT : CODE_AT + 8] + bytes(8)
    path = program(tmp_path, code, notes=notes)
    assert places(parse(f"usdt:{path}:p:good"))[0].offset == CODE_AT
    with pytest.raises(ProbeError, match=r"has no nop at .* where it places 'p:bad'"):
        places(parse(f"usdt:{path}:p:bad"))
    if kernel.arch() == "x86_64":
        path = program(tmp_path, code[:8] + bytes.fromhex("0f1f440000"), notes=notes)
        assert places(parse(f"usdt:{path}:p:bad"))


def test_a_reference_counter_lies_where_the_program_may_write(tmp_path: Path) -> None:
    def note(semaphore: int) -> bytes:
        data = struct.pack("<3Q", BASE, 0, semaphore) + b"p\0n\0\0"
        return struct.pack("<3I8s", 8, len(data), 3, b"stapsdt\0") + data + bytes(-len(data) % 4)

    path = program(tmp_path, b"", notes=note(0))
    assert places(parse(f"usdt:{path}:p:n"))
    path = program(tmp_path, b"", notes=note(BASE + 0x100))
    with pytest.raises(ProbeError, match="has no static probes"):
        places(parse(f"usdt:{path}:p:n"))
