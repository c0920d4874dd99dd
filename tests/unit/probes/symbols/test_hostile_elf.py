# SPDX-License-Identifier: Apache-2.0
"""ELF files that somebody made to harm their reader: only ProbeError may come of them."""

from __future__ import annotations

import gc
import lzma
import os
import random
import resource
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from probes.core.errors import ProbeError
from probes.host import file_access
from probes.host.open_file import OpenFile
from probes.latency.requests import wishes_of
from probes.symbols import debug_files, functions, usdt
from probes.symbols import elf as elf_module
from probes.symbols.elf import Elf
from probes.symbols.unwind_tables import UnwindTables
from probes.symbols.usdt_operands import MOST_ARGUMENTS, MOST_TEXT, arguments
from probes.uprobes import go_files, return_hazards
from tests.fuzzing import inputs
from tests.unit.elf_file import CODE_AT, FUNC, GLOBAL, LOCAL, ElfFile, Row, usdt_note
from tests.unit.unwind_file import tables

SYMBOLS: list[Row] = [
    ("run", FUNC, GLOBAL, 0x10, 32),
    ("stop@@V2", FUNC, GLOBAL, 0x40, 8),
    ("inner", FUNC, LOCAL, 0x80, 8),
    ("counter", 1, GLOBAL, 0x90, 8),
]
NOTES = usdt_note("p", "start", 8, "-4@%eax 8@counter(%rip)") + usdt_note("p", "done", 16)
FRAMES = [(0x403010, 32, bytes([0x41, 0x0E, 16, 0x86, 2])), (0x403040, 8, bytes([0x0E, 64]))]
MEMORY = 400 << 20


def in_memory(data: bytes) -> OpenFile:
    fd = os.memfd_create("hostile")
    os.write(fd, data)
    return OpenFile(fd, "/hostile")


def limited(work: Callable[[], object]) -> str:
    """What `work` says in a child that may have 400 MiB more and a minute of CPU time."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
            answer = repr(work())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child was ended by signal {os.WTERMSIG(status)}"
    return said


def assert_shown(text: str) -> None:
    assert text.isprintable()


def read_all(file: OpenFile) -> None:
    """Everything that is read of a file on behalf of a target or a search."""
    for read in (
        lambda: functions.functions(file, "/nowhere"),
        lambda: functions.function(file, "absent", "/nowhere"),
        lambda: functions.covering(file, CODE_AT),
        lambda: functions.address_offset(file, 0x403010),
        lambda: functions.is_go(file),
        lambda: usdt.find_probes(file, "p", "x"),
        lambda: usdt.arguments_of(file, usdt.read_probes(file)),
        lambda: all(map(partial(usdt.check_nop, file), usdt.read_probes(file))),
        lambda: debug_files.believed(Elf(file), "/nowhere"),
        lambda: UnwindTables(Elf(file)).frame(0x403010),
        lambda: return_hazards.of(file, "run"),
        lambda: go_files.why_untimed(file, "run"),
    ):
        try:
            read()
        except ProbeError as error:
            assert_shown(str(error))


def samples() -> list[bytes]:
    """Good files with everything that is read."""
    packed = lzma.compress(ElfFile(symtab=SYMBOLS).build())
    versions = [2, 0x8003, 2, 2]
    return [
        ElfFile(symtab=SYMBOLS, dynsym=SYMBOLS, versions=versions, notes=NOTES).build(),
        ElfFile(dynsym=SYMBOLS, build_id=b"\1\2\3", notes=NOTES, debuglink="x.debug").build(),
        ElfFile(dynsym=SYMBOLS, debugdata=packed, extra=[".go.buildinfo"]).build(),
        ElfFile(dynsym=SYMBOLS, needed=["libc.so.6"], tables=tables(FRAMES)).build(),
    ]


NUMBERS = [0, 1, 2, 7, 0x7F, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]


def mutated(chance: random.Random, data: bytes) -> bytes:
    """A file with some damage where numbers are: in the header and behind the code."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.choice((chance.randrange(120), chance.randrange(CODE_AT + 0x1000, len(result))))
        width = chance.choice((1, 2, 4, 8))
        value = chance.choice((chance.choice(NUMBERS), chance.getrandbits(64)))
        new = value.to_bytes(8, "little")[:width]
        result[at : at + width] = new[: len(result) - at]
    if chance.random() < 0.1:
        del result[chance.randrange(len(result)) :]
    return bytes(result)


def test_damaged_files_are_refused_and_nothing_else_happens() -> None:
    chance = random.Random(13)
    good = samples()
    gc.collect()  # files that the errors of other tests still hold
    before = len(os.listdir("/proc/self/fd"))
    for number in range(inputs()):
        read_all(in_memory(mutated(chance, good[number % len(good)])))
    assert len(os.listdir("/proc/self/fd")) == before


def test_damaged_debug_data_is_refused_and_nothing_else_happens() -> None:
    chance = random.Random(14)
    inner = ElfFile(symtab=SYMBOLS).build()
    for _ in range(inputs() // 4):
        packed = lzma.compress(mutated(chance, inner), preset=0)
        if chance.random() < 0.5:
            packed = mutated_anywhere(chance, packed)
        read_all(in_memory(ElfFile(dynsym=SYMBOLS, debugdata=packed).build()))


def mutated_anywhere(chance: random.Random, data: bytes) -> bytes:
    result = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        result[chance.randrange(len(result))] = chance.getrandbits(8)
    return bytes(result)


def test_descriptions_of_arguments_can_be_anything() -> None:
    chance = random.Random(15)
    words = ["-4@", "8@", "%rip", "%eax", "(", ")", ",", "[x1, ", "]", "$", "0x", "9" * 50, " "]
    words += ["\t", "counter+", "f@", "-", "\ufffd", "٣", "lsl #3", "1", "@"]
    for _ in range(inputs()):
        text = "".join(chance.choices(words, k=chance.randrange(1, 60)))
        for arch in ("x86_64", "arm64"):
            found = arguments(text, arch, lambda name: 4)
            assert len(found) <= MOST_ARGUMENTS
            assert all(0 <= one.operand.at < 1 << 64 for one in found if one.operand)


def test_descriptions_of_arguments_that_take_long_are_cut_off() -> None:
    text = "-4@%eax" + " \t" * 500_000 + "x 8@%rax"
    said = limited(lambda: [one.text for one in arguments(text, "x86_64")])
    assert said == "['-4@%eax']"
    assert len(text) > MOST_TEXT


def file_with_tables(symbols: int, strings: bytes, row: Callable[[int], bytes]) -> bytes:
    """A file with a .symtab of rows and a .strtab."""
    data = ElfFile(symtab=SYMBOLS).build()
    (at,) = struct.unpack_from("<Q", data, 40)
    width, number = struct.unpack_from("<2H", data, 58)
    result = bytearray(data)
    table = b"".join(map(row, range(symbols)))
    places = {2: (len(result), len(table)), 3: (len(result) + len(table), len(strings))}
    for section in range(1, 3):
        header = at + width * section
        (kind,) = struct.unpack_from("<I", result, header + 4)
        struct.pack_into("<2Q", result, header + 24, *places[kind])
    assert number > 2
    return bytes(result) + table + strings


def symbol(name: int) -> bytes:
    return struct.pack("<IBBHQQ", name, 0x12, 0, 1, 0x403000 + name % 0x1000, 1)


def test_200000_symbols_in_a_string_table_without_an_end() -> None:
    data = file_with_tables(200_000, b"x" * (20 << 20), symbol)
    said = limited(lambda: len(functions.functions(in_memory(data))))
    assert said == "0"


def test_names_that_share_their_bytes_do_not_multiply() -> None:
    """A million names of up to 4 KiB would be 2 GB."""
    length = elf_module.MOST_NAME - 1
    strings = b"x" * length + b"\0"
    data = file_with_tables(500_000, strings, lambda number: symbol(number % length))
    said = limited(lambda: len(functions.functions(in_memory(data))))
    assert said == "ProbeError: '/hostile' has longer names of symbols, and 128 MiB is the most " \
        "that is read: name a smaller file"  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({56: 129}, "has 129 program headers, and 128 is the most"),
        ({60: 10_001}, "has 10001 sections, and 10000 is the most"),
        ({54: 55}, "is damaged: its program headers are too short"),
        ({16: 4}, "is what remains of a process"),
        ({16: 0xFE00}, "is no program or library"),
    ],
)
def test_limits_are_named(change: dict[int, int], why: str) -> None:
    data = bytearray(ElfFile(symtab=SYMBOLS).build())
    for at, value in change.items():
        struct.pack_into("<H", data, at, value)
    with pytest.raises(ProbeError, match=why):
        functions.functions(in_memory(bytes(data)))


def test_too_many_symbols_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf_module, "MOST_SYMBOLS", 3)
    with pytest.raises(ProbeError, match="has 5 symbols, and 3 is the most that is read"):
        functions.functions(in_memory(ElfFile(symtab=SYMBOLS).build()))


def test_what_is_loaded_must_not_overlap() -> None:
    data = bytearray(ElfFile(symtab=SYMBOLS).build())
    # The first bytes behind the program header are free: a second one, of the same addresses.
    data[64 + 56 : 64 + 112] = data[64 : 64 + 56]
    struct.pack_into("<H", data, 56, 2)
    with pytest.raises(ProbeError, match="what it loads overlaps"):
        functions.functions(in_memory(bytes(data)))


def test_functions_lie_in_what_is_run() -> None:
    data = bytearray(ElfFile(symtab=SYMBOLS, notes=NOTES).build())
    struct.pack_into("<I", data, 64 + 4, 6)
    assert functions.functions(in_memory(bytes(data))) == {}
    assert usdt.read_probes(in_memory(bytes(data))) == []


@pytest.mark.parametrize("filters", [None, [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]])
def test_a_small_debug_data_that_unpacks_to_much(
    filters: list[dict[str, int]] | None, tmp_path: Path
) -> None:
    packer = lzma.LZMACompressor(preset=0) if filters is None else None
    packed: bytes | bytearray
    if packer:
        packed = b"".join(packer.compress(bytes(8 << 20)) for _ in range(40)) + packer.flush()
    else:
        # Only the header says that unpacking takes a gigabyte.
        packed = bytearray(
            lzma.compress(b"x" * 1000, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}])
        )
        header = packed[12:24]
        assert header[2] == 0x21
        header[4] = 36
        header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
        packed[12:24] = header
    data = ElfFile(dynsym=SYMBOLS, debugdata=bytes(packed)).build()
    assert len(data) < 160_000
    said = limited(lambda: functions.functions(in_memory(data), str(tmp_path)))
    assert said.startswith("ProbeError: '/hostile' has a .gnu_debugdata that ")
    assert "MiB is the most" in said


def test_static_probes_have_limits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    file = in_memory(ElfFile(notes=NOTES).build())
    assert len(usdt.read_probes(file)) == 2
    huge = struct.pack("<3I8s", 8, 0xFFFFFFF0, 3, b"stapsdt\0") + bytes(64)
    empty = struct.pack("<3I", 0, 0, 3) * 1000
    other = NOTES.replace(b"stapsdt\0", b"somebody")
    assert usdt.read_probes(in_memory(ElfFile(notes=huge + empty + other).build())) == []
    monkeypatch.setattr(usdt, "MOST_PROBES", 1)
    with pytest.raises(ProbeError, match="has more static probes, and 1 is the most"):
        usdt.read_probes(file)
    monkeypatch.setattr(usdt, "MOST_NOTES_BYTES", 10 << 10)
    with pytest.raises(ProbeError, match=r"a section '.note.stapsdt' of \d+ bytes, and 10 KiB"):
        usdt.read_probes(in_memory(ElfFile(notes=NOTES * 200).build()))


def test_compressed_sections_are_not_unpacked() -> None:
    data = bytearray(ElfFile(symtab=SYMBOLS).build())
    (at,) = struct.unpack_from("<Q", data, 40)
    struct.pack_into("<Q", data, at + 64 + 8, 1 << 11)
    with pytest.raises(ProbeError, match=r"its section '.symtab' is compressed"):
        functions.functions(in_memory(bytes(data)))


def test_what_is_remembered_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "MOST_FUNCTIONS", 7)
    files = [in_memory(ElfFile(symtab=SYMBOLS).build()) for _ in range(5)]
    for file in files:
        assert len(functions.functions(file)) == 3
    known = functions._functions_of
    assert sum(map(len, known.values())) <= 7
    assert ("/hostile", debug_files.DEBUG_ROOT, files[-1].version) in known


def stretched(data: bytes, kind: int, size: int) -> OpenFile:
    """A file whose first section of a kind is made of zeros, as large as `size`."""
    result = bytearray(data)
    (at,) = struct.unpack_from("<Q", result, 40)
    width, number = struct.unpack_from("<2H", result, 58)
    headers = [at + width * section for section in range(number)]
    header = next(h for h in headers if struct.unpack_from("<I", result, h + 4)[0] == kind)
    struct.pack_into("<2Q", result, header + 24, len(result), size)
    file = in_memory(bytes(result))
    os.truncate(file.fd, len(result) + size)
    return OpenFile(os.dup(file.fd), "/hostile")


@pytest.mark.parametrize("kind", [0x6FFFFFFF, 11])
def test_what_is_read_of_a_section_is_what_is_used(kind: int) -> None:
    """Versions are two bytes a symbol, and symbols are counted before they are read."""
    good = ElfFile(dynsym=SYMBOLS, versions=[2, 0x8003, 2, 2]).build()
    size = elf_module.MOST_SECTION

    def read() -> object:
        # 256 MiB of numbers would be several GB of Python's.
        resource.setrlimit(resource.RLIMIT_CPU, (3, 3))
        file = stretched(good, kind, size)
        return sorted(functions.functions(file, "/nowhere"))

    said = limited(read)
    assert "run" in said or "symbols, and 1000000 is the most that is read" in said


def test_names_of_sections_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(ElfFile(symtab=SYMBOLS).build())
    (at,) = struct.unpack_from("<Q", data, 40)
    (last,) = struct.unpack_from("<H", data, 62)
    size = 200 << 20
    struct.pack_into("<2Q", data, at + 64 * last + 24, len(data), size)
    file = in_memory(bytes(data))
    os.truncate(file.fd, len(data) + size)
    with pytest.raises(ProbeError, match=r"of 209715200 bytes, and 4 MiB is the most"):
        functions.functions(OpenFile(os.dup(file.fd), "/hostile"))


def test_the_time_is_looked_at_between_parts_of_a_large_section() -> None:
    file = in_memory(b"")
    os.truncate(file.fd, 64 << 20)
    with file_access.target("", 0.0), pytest.raises(file_access.TooSlow):
        file.read(64 << 20, 0)
    parts: list[int] = []
    real = os.pread

    def noted(fd: int, size: int, at: int) -> bytes:
        parts.append(size)
        return real(fd, size, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", noted)
        assert len(file.read(64 << 20, 0)) == 64 << 20
    assert max(parts) <= 4 << 20


def test_what_a_file_says_does_not_fill_the_answer(tmp_path: Path) -> None:
    """All targets of a request are answered by one message of a bounded size."""
    notes = b"".join(usdt_note("p" * 1000, f"n{n}" + "x" * 2000, 8) for n in range(6))
    path = tmp_path / "x"
    path.write_bytes(ElfFile(notes=notes).build())
    found = wishes_of({"targets": [f"usdt:{path}:q:other"]})
    ((_, why, fix),) = found.errors
    assert "has no static probe" in why
    assert len(why) + len(fix) < 1500
