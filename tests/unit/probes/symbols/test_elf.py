# SPDX-License-Identifier: Apache-2.0
"""Functions and static probes of ELF files whose every offset is known, and of broken ones."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.core.errors import ProbeError
from probes.core.suggestions import near
from probes.symbols import functions as elf
from probes.symbols.usdt import UsdtProbe, find_probes, usdt_probes
from tests.unit.elf_file import (
    ADDRESS,
    CODE_AT,
    FUNC,
    GLOBAL,
    IFUNC,
    LOCAL,
    MOVED,
    OBJECT,
    ElfFile,
    Row,
    usdt_note,
)


def written(path: Path, file: ElfFile) -> str:
    path.write_bytes(file.build())
    return str(path)


def refused(path: str, name: str) -> ProbeError:
    with pytest.raises(ProbeError) as caught:
        elf.function(path, name)
    return caught.value


def test_offsets_are_those_in_the_file(tmp_path: Path) -> None:
    symbols: list[Row] = [("run", FUNC, GLOBAL, 0x10, 32), ("stop", FUNC, LOCAL, 0x40, 8)]
    path = written(tmp_path / "x", ElfFile(symtab=symbols))
    assert elf.functions(path) == {
        "run": elf.Function(CODE_AT + 0x10, 32, False),
        "stop": elf.Function(CODE_AT + 0x40, 8, False),
    }
    assert elf.function(path, "run").offset == CODE_AT + 0x10


def test_the_default_version_and_the_global_one_win(tmp_path: Path) -> None:
    file = ElfFile(
        symtab=[("twice", FUNC, LOCAL, 1, 1), ("twice", FUNC, GLOBAL, 2, 1)],
        dynsym=[("wait", FUNC, GLOBAL, 3, 1), ("wait", FUNC, GLOBAL, 4, 1)],
        versions=[2, 0x8003],
    )
    file.symtab += [("open@@V2", FUNC, GLOBAL, 5, 1), ("open@V1", FUNC, GLOBAL, 6, 1)]
    path = written(tmp_path / "x", file)
    offsets = {name: f.offset - CODE_AT for name, f in elf.functions(path).items()}
    assert offsets == {"twice": 2, "wait": 3, "open": 5}


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "x", ElfFile(symtab=[("a", FUNC, GLOBAL, 1, 1)]))
    assert set(elf.functions(path)) == {"a"}
    written(tmp_path / "y", ElfFile(symtab=[("b", FUNC, GLOBAL, 1, 1)]))
    (tmp_path / "y").rename(tmp_path / "x")
    assert set(elf.functions(path)) == {"b"}


def test_names_with_control_characters_are_left_out(tmp_path: Path) -> None:
    symbols: list[Row] = [("a\x1b[2J", FUNC, GLOBAL, 1, 1), ("b", FUNC, GLOBAL, 2, 1)]
    path = written(tmp_path / "x", ElfFile(symtab=symbols))
    assert set(elf.functions(path)) == {"b"}


def test_symbols_of_a_debug_file_of_the_same_build(tmp_path: Path) -> None:
    stripped = ElfFile(dynsym=[("api", FUNC, GLOBAL, 1, 1)], build_id=b"\xab\xcd\xef")
    path = written(tmp_path / "x", stripped)
    debug = tmp_path / "debug" / ".build-id" / "ab" / "cdef.debug"
    debug.parent.mkdir(parents=True)
    inner: list[Row] = [("inner", FUNC, LOCAL, 0x20, 4)]
    written(debug, ElfFile(symtab=inner, build_id=b"\xab\xcd\xef"))
    found = elf.functions(path, str(tmp_path / "debug"))
    assert {name: f.offset - CODE_AT for name, f in found.items()} == {"api": 1, "inner": 0x20}
    assert set(elf.functions(path, str(tmp_path / "nowhere"))) == {"api"}


def test_a_debug_file_of_another_build_is_not_used(tmp_path: Path) -> None:
    symbols: list[Row] = [("api", FUNC, GLOBAL, 1, 1)]
    file = ElfFile(dynsym=symbols, build_id=b"\xab\xcd", debuglink="x.debug")
    path = written(tmp_path / "x", file)
    (tmp_path / ".debug").mkdir()
    inner: list[Row] = [("inner", FUNC, LOCAL, 0x20, 4)]
    written(tmp_path / ".debug" / "x.debug", ElfFile(symtab=inner, build_id=b"\x01\x02"))
    assert set(elf.functions(path)) == {"api"}
    written(tmp_path / ".debug" / "x.debug", ElfFile(symtab=inner, build_id=b"\xab\xcd"))
    file.dynsym.append(("new", FUNC, GLOBAL, 2, 1))
    written(tmp_path / "x", file)
    assert set(elf.functions(path)) == {"api", "new", "inner"}


def test_compressed_symbols(tmp_path: Path) -> None:
    packed = lzma.compress(ElfFile(symtab=[("inner", FUNC, LOCAL, 9, 1)]).build())
    file = ElfFile(dynsym=[("api", FUNC, GLOBAL, 1, 1)], debugdata=packed)
    assert set(elf.functions(written(tmp_path / "x", file))) == {"api", "inner"}
    file = ElfFile(dynsym=[("api", FUNC, GLOBAL, 1, 1)], debugdata=b"no xz")
    assert set(elf.functions(written(tmp_path / "y", file))) == {"api"}


def test_why_a_symbol_has_no_function(tmp_path: Path) -> None:
    symbols: list[Row] = [
        ("readline", FUNC, GLOBAL, 1, 1),
        ("table", OBJECT, GLOBAL, 2, 1),
        ("malloc", FUNC, GLOBAL, None, 0),
        ("memcpy", IFUNC, GLOBAL, 3, 1),
        ("__memcpy_avx", FUNC, LOCAL, 4, 1),
        ("_ZN3app3runEv", FUNC, GLOBAL, 5, 1),
    ]
    path = written(tmp_path / "x", ElfFile(symtab=symbols))
    assert refused(path, "readlin").fix == "did you mean readline"
    assert "misspelt, or inlined" in refused(path, "readlin").why
    assert "is data, not a function" in refused(path, "table").why
    assert "of a library, but does not contain it" in refused(path, "malloc").why
    assert refused(path, "malloc").fix == "name the library, for example uprobe:libc:malloc"
    assert "only chooses the function" in refused(path, "memcpy").why
    assert refused(path, "memcpy").fix.endswith(f"uprobe:{path}:__memcpy_*")
    assert refused(path, "run").fix == "did you mean app::run()"
    assert elf.symbol_of(path, "app::run") == elf.symbol_of(path, "app::run()") == "_ZN3app3runEv"


def test_stripped_files_say_so(tmp_path: Path) -> None:
    path = written(tmp_path / "x", ElfFile(build_id=b"\1\2"))
    assert elf.functions(path) == {}
    assert "is stripped: it names no function at all" in refused(path, "main").why
    assert "-dbgsym" in refused(path, "main").fix
    probes = written(tmp_path / "y", ElfFile(notes=usdt_note("p", "n", 1)))
    assert "usdt:" in refused(probes, "main").fix
    some = written(tmp_path / "z", ElfFile(dynsym=[("api", FUNC, GLOBAL, 1, 1)]))
    assert "none of the 1 functions that it exports" in refused(some, "xyzzy").why


WRONG = [
    (ElfFile(bits=1).build(), "is a 32-bit ELF file"),
    (ElfFile(machine=243).build(), "is for RISC-V, and this machine is"),
    (ElfFile(machine=9999).build(), "is for machine 9999"),
    (ElfFile(kind=1).build(), "object file or kernel module"),
    (b"", "is not an ELF file"),
    (b"hello", "is not an ELF file"),
    (b"#!/bin/sh\nexit\n", "is a script, not an ELF file"),
    (ElfFile().build()[:60], "is damaged"),
    (ElfFile(symtab=[("f", FUNC, GLOBAL, 1, 1)]).build()[:-70], "is damaged"),
]


@pytest.mark.parametrize(("data", "why"), WRONG, ids=[why[:24] for _, why in WRONG])
def test_what_is_no_file_to_trace(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "x").write_bytes(data)
    assert why in refused(str(tmp_path / "x"), "main").why


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    assert "there is no file" in refused(str(tmp_path / "none"), "main").why
    assert "is no regular file" in refused(str(tmp_path), "main").why
    assert "cannot be read" in refused("/a\0b", "main").why


@given(st.binary(max_size=64), st.integers(0, 6000))
def test_damage_never_does_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int
) -> None:
    symbols: list[Row] = [("run", FUNC, GLOBAL, 0x10, 32)]
    good = ElfFile(symtab=symbols, dynsym=symbols, notes=usdt_note("p", "n", 1)).build()
    path = tmp_path_factory.getbasetemp() / "damaged"
    at = at if at < 200 else len(good) - (at % 1200)
    path.write_bytes(good[:at] + junk + good[at + len(junk) :])
    try:
        found = dict(elf.functions(str(path)))
        usdt_probes(str(path))
    except ProbeError as error:
        found = {}
        assert_shown(error)
    assert all(name.isprintable() for name in found)


def assert_shown(error: ProbeError) -> None:
    assert str(error).isprintable()


def test_addresses_become_offsets(tmp_path: Path) -> None:
    path = written(tmp_path / "x", ElfFile())
    assert elf.address_offset(path, 0x403010) == CODE_AT + 0x10
    with pytest.raises(ProbeError, match="has nothing at address 0x10"):
        elf.address_offset(path, 0x10)


def test_static_probes_with_their_arguments(tmp_path: Path) -> None:
    notes = usdt_note("app", "start", 8, "-4@%eax") + usdt_note("app", "start", 16)
    path = written(tmp_path / "x", ElfFile(notes=notes + usdt_note("lib", "done", 24)))
    at = ADDRESS + CODE_AT + MOVED
    start = [
        UsdtProbe("app", "start", CODE_AT + 8, 0, "-4@%eax", at + 8),
        UsdtProbe("app", "start", CODE_AT + 16, 0, "", at + 16),
    ]
    assert find_probes(path, "app", "start") == start
    assert find_probes(path, "", "start") == start
    for provider, name, fix in (
        ("app", "done", "did you mean lib:done"),
        ("app", "strt", "did you mean app:start"),
        ("", "zzz", "it has app:start, lib:done"),
    ):
        with pytest.raises(ProbeError) as caught:
            find_probes(path, provider, name)
        assert caught.value.fix == fix
    with pytest.raises(ProbeError, match="has no static probes"):
        find_probes(written(tmp_path / "y", ElfFile()), "", "x")


def test_near_names_prefer_what_was_likely_meant() -> None:
    names = ["vfs_read", "vfs_readv", "VFS_READ", "ksys_read", "unrelated", "do_vfs_read"]
    assert near("vfs_raed", names)[0] == "vfs_read"
    assert near("VFS_read", names)[:2] == ["vfs_read", "VFS_READ"]
    assert "do_vfs_read" in near("_vfs_read", names)
    assert near("qqqq", names) == []
