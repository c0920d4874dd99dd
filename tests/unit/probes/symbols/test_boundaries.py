# SPDX-License-Identifier: Apache-2.0
"""Places in programs: only function starts, proven instructions, and nops of static probes."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.host.file_access import Asker, for_clients, set_asker
from probes.symbols import functions, instruction_boundaries
from probes.symbols.binaries import places
from probes.symbols.instruction_boundaries import decoded
from probes.symbols.target_spec import parse
from tests.kernel.harness import children_of
from tests.unit.elf_file import ADDRESS, CODE_AT, DATA, FUNC, GLOBAL, MOVED, ElfFile, Row, usdt_note

x86 = pytest.mark.skipif(kernel.arch() != "x86_64", reason="these are instructions of x86_64")
BASE = ADDRESS + CODE_AT + MOVED
DATA_FLAGS, CODE_FLAGS = struct.pack("<2I", 1, 6), struct.pack("<2I", 1, 4)
"""The beginning of the writable segment's program header, and of one that is read only."""

# push %rbp; mov %rsp,%rbp; mov $0x12345678,%eax; jmp over two bytes; (2 bytes); pop %rbp; ret
CODE = bytes.fromhex("55 4889e5 b878563412 eb02 9090 5d c3")
STARTS = [0, 1, 4, 9, 13, 14]


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
@pytest.mark.parametrize(
    ("code", "starts"),
    [
        # jmp 3; data that begins a five-byte instruction; nop; ret
        ("eb01 b8 90909090 c3", {0, 3, 4, 5, 6, 7}),
        # jmp 12; data that decodes well and ends where the code goes on; ret
        ("eb0a 90909090909090909090 c3", {0, 12}),
        # lea 9(%rip),%rdx; add; a jump by a table, which follows; an entry; a case
        ("488d1509000000 4801d0 3effe0 0000000090909090 90c3", {0, 7, 10}),
        # call over data; pop; ret
        ("e804000000 90909090 5f c3", {0, 9, 10}),
        # retpoline: call 7; pause; jmp 5; nop; mov %rax,(%rsp); ret
        ("e804000000 f390 ebfc 48890424 c3", {0, 9, 13}),
        # a call of something else, then nop; ret; nop
        ("e800010000 90 c3 90", {0, 5, 6}),
        # its own start is called
        ("e8fbffffff 90 c3", {0, 5, 6}),
        # je 3; ret; loop 0; repz ret; nop
        ("7401 c3 e2fb f3c3 90", {0, 2, 3, 5}),
        # ud2; nop
        ("0f0b 90", {0}),
        # a transaction that falls back to 7; ret; ret
        ("c7f801000000 c3 c3", {0, 6, 7}),
    ],
)
def test_only_what_the_start_leads_to(code: str, starts: set[int]) -> None:
    found, inner = decoded(bytes.fromhex(code))
    assert set(found) == starts
    assert not inner


@x86
def test_a_jump_behind_a_lock_prefix(tmp_path: Path) -> None:
    """What the C library does where there is one thread: both are instructions of the program."""
    path = program(tmp_path, bytes.fromhex("7401 f0480fb10a c3"))
    for offset in (2, 7):
        assert places(parse(f"uprobe:{path}:f+{offset}"))
    # A breakpoint there changes the instruction for those who come from in front of the prefix.
    for offset in (3, 4):
        with pytest.raises(ProbeError, match="is proven to begin"):
            places(parse(f"uprobe:{path}:f+{offset}"))


ARM = {
    "b 12": 0x14000003,
    "cbz w0, 12": 0x34000060,
    "tbnz w0, 0, 12": 0x37000060,
    "b.eq 12": 0x54000060,
    "bl 12": 0x94000003,
    "bl far away": 0x94010000,
    "blr x0": 0xD63F0000,
    "br x0": 0xD61F0000,
    "ldr x0, 12": 0x58000060,
    "ret": 0xD65F03C0,
    "brk 1": 0xD4200020,
    "data": 0xD503201F,
}


@pytest.mark.parametrize(
    ("first", "starts"),
    [
        ("b 12", {0, 12}),
        ("cbz w0, 12", {0, 4, 8, 12}),
        ("tbnz w0, 0, 12", {0, 4, 8, 12}),
        ("b.eq 12", {0, 4, 8, 12}),
        ("bl 12", {0, 12}),
        ("bl far away", {0, 4, 8}),
        ("blr x0", {0, 4, 8}),
        ("br x0", {0}),
        ("ldr x0, 12", {0, 4, 8}),
        ("brk 1", {0}),
    ],
)
def test_only_what_the_start_leads_to_on_arm64(
    monkeypatch: pytest.MonkeyPatch, first: str, starts: set[int]
) -> None:
    """Behind the return lies what may be a literal pool: data that decodes as instructions."""
    monkeypatch.setattr(kernel, "arch", lambda: "arm64")
    words = [ARM[first], ARM["data"], ARM["ret"], ARM["data"], 0xFFFFFFFF]
    found, inner = decoded(struct.pack("<5I", *words))
    assert set(found) == starts
    assert not inner


SWITCH = """
#include <stdlib.h>
int work(int which, int *at)
{
	int sum = 0;
	for (int i = 0; i < which; i++)
		sum += at[i] * 0x12345678;
	if (sum == 7)
		abort();
	switch (which) {
	case 0: return sum + at[3];
	case 1: return sum * at[4];
	case 2: return sum - at[5];
	case 3: return sum ^ at[6];
	case 4: return sum | at[7];
	case 5: return sum / at[8];
	default: return rand();
	}
}
int main(int argc, char **argv) { return work(argc, 0); }
"""


@pytest.mark.skipif(not (shutil.which("cc") and shutil.which("objdump")), reason="needs cc")
@pytest.mark.parametrize("optimised", ["-O0", "-O2"])
def test_what_a_compiler_makes(tmp_path: Path, optimised: str) -> None:
    (tmp_path / "x.c").write_text(SWITCH)
    path = tmp_path / "x"
    subprocess.run(["cc", optimised, "-o", str(path), str(tmp_path / "x.c")], check=True)
    listed = subprocess.run(
        ["objdump", "-d", "--disassemble=work", str(path)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    known = {
        int(at, 16) for at in re.findall(r"^\s+([0-9a-f]+):\t(?:[0-9a-f]{2,8} )", listed, re.M)
    }
    function = functions.function(str(path), "work")
    with open(path, "rb") as file:
        file.seek(function.offset)
        starts, inner = decoded(file.read(function.size))
    begin = min(known)
    assert not inner
    assert {begin + at for at in starts} <= known
    assert len(starts) > len(known) // 3


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

    monkeypatch.setattr(instruction_boundaries, "_decode", spy)
    reading, writing = os.pipe()
    try:
        answer: list[int] = []
        monkeypatch.setattr(
            instruction_boundaries, "frozenset", lambda row: answer.extend(row), raising=False
        )
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

    before = set(children_of(os.getpid()))
    monkeypatch.setattr(instruction_boundaries, "_decode", misbehave)
    monkeypatch.setattr(instruction_boundaries, "SECONDS", 0.5)
    with pytest.raises(ProbeError, match=r"without an answer|takes longer"):
        decoded(b"\x90" * 64)
    assert set(children_of(os.getpid())) <= before


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


@pytest.mark.parametrize(
    ("counter", "allowed"),
    [
        (0, True),
        (DATA, True),
        (DATA + 6, True),
        (DATA + 7, False),
        (DATA + 8, False),
        (DATA + 12, False),
        (DATA + 1, False),
        (DATA - 2, False),
        (BASE + 0x100, False),
        ((1 << 64) - 2, False),
    ],
)
def test_a_reference_counter_is_one(tmp_path: Path, counter: int, allowed: bool) -> None:
    """The kernel adds to it in every process that runs the file: no other data may be named."""
    path = tmp_path / "program"
    notes = usdt_note("p", "n", 0, counter=counter)
    path.write_bytes(ElfFile(notes=notes, counters=8).build())
    if not allowed:
        with pytest.raises(ProbeError, match="has no static probes"):
            places(parse(f"usdt:{path}:p:n"))
        return
    (place,) = places(parse(f"usdt:{path}:p:n"))
    assert bool(place.semaphore) is bool(counter)


def test_reference_counters_lie_in_a_section_of_their_own(tmp_path: Path) -> None:
    notes = usdt_note("p", "n", 0, counter=DATA)
    data = ElfFile(notes=notes, counters=8).build()
    path = tmp_path / "program"
    for changed in (data.replace(b".probes", b".xrobes"), data.replace(DATA_FLAGS, CODE_FLAGS)):
        assert changed != data
        path.write_bytes(changed)
        with pytest.raises(ProbeError, match="has no static probes"):
            places(parse(f"usdt:{path}:p:n"))
