# SPDX-License-Identifier: Apache-2.0
"""Which file a name means, for a process and without one, and which places in it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.symbols.binaries import (
    INSIDE,
    FilePlace,
    cached_libraries,
    find_binary,
    mappings,
    places,
)
from probes.symbols.target_spec import parse
from tests.unit.elf_file import CODE_AT, FUNC, GLOBAL, IFUNC, LOCAL, ElfFile, Row, usdt_note

SYMBOLS: list[Row] = [
    ("run", FUNC, GLOBAL, 0x10, 32),
    ("run_again", FUNC, GLOBAL, 0x40, 8),
    ("run_alias", FUNC, LOCAL, 0x40, 8),
    ("run.cold", FUNC, LOCAL, 0x80, 8),
    ("run_ifunc", IFUNC, GLOBAL, 0x90, 8),
    ("main.(*T).Run", FUNC, GLOBAL, 0xA0, 8),
    ("_start", FUNC, GLOBAL, 0, 8),
]


@pytest.fixture
def binary(tmp_path: Path) -> str:
    path = tmp_path / "app"
    notes = usdt_note("p", "start", 8) + usdt_note("p", "start", 16)
    path.write_bytes(ElfFile(symtab=SYMBOLS, notes=notes).build())
    return str(path)


def offsets(spec: str) -> list[tuple[str, int, str]]:
    return [(p.name, p.offset - CODE_AT, p.no_return) for p in places(parse(spec))]


def test_a_function_an_offset_and_an_address(binary: str) -> None:
    assert places(parse(f"u:{binary}:run")) == [FilePlace(binary, "run", CODE_AT + 0x10)]
    assert offsets(f"u:{binary}:run+0") == [("run", 0x10, "")]
    assert offsets(f"u:{binary}:run+4") == [("run+0x4", 0x14, INSIDE)]
    assert offsets(f"u:{binary}:0x403010") == [("run", 0x10, "")]
    assert offsets(f"u:{binary}:0x403014") == [("0x403014", 0x14, INSIDE)]
    with pytest.raises(ProbeError, match="is 32 bytes long"):
        places(parse(f"u:{binary}:run+32"))


def test_a_wildcard_takes_each_code_once_and_whole_functions_only(binary: str) -> None:
    assert offsets(f"u:{binary}:run*") == [("run", 0x10, ""), ("run_again", 0x40, "")]
    assert offsets(f"u:{binary}:main.(*T).Run") == [("main.(*T).Run", 0xA0, "")]
    with pytest.raises(ProbeError, match="matches no function"):
        places(parse(f"u:{binary}:x*"))
    with pytest.raises(ProbeError, match=r"matches 2 functions of .*, and 1 at once is the most"):
        places(parse(f"u:{binary}:run*"), limit=1)


def test_where_a_return_probe_would_crash_the_program(binary: str, tmp_path: Path) -> None:
    assert "entered by a jump" in places(parse(f"u:{binary}:run.cold"))[0].no_return
    assert "never returns" in places(parse(f"u:{binary}:_start"))[0].no_return
    path = tmp_path / "go"
    path.write_bytes(ElfFile(symtab=SYMBOLS, extra=[".go.buildinfo"]).build())
    assert "Go moves its stacks" in places(parse(f"u:{path}:run"))[0].no_return


def test_every_place_of_a_static_probe(binary: str) -> None:
    found = places(parse(f"usdt:{binary}:p:start"))
    assert [(p.name, p.offset - CODE_AT) for p in found] == [("p:start", 8), ("p:start", 16)]
    assert places(parse(f"usdt:{binary}:start")) == found


def cache_file(path: Path, libraries: list[tuple[str, str]]) -> str:
    """An ld.so.cache with libraries of this architecture, behind one of the old format."""
    arch = {"x86_64": 0x0303, "arm64": 0x0A03}[kernel.arch() or "x86_64"]
    rows, strings, start = b"", b"", 48 + 24 * len(libraries)
    for name, file in libraries:
        at = start + len(strings)
        rows += struct.pack("<4IQ", arch, at, at + len(name) + 1, 0, 0)
        strings += name.encode() + b"\0" + file.encode() + b"\0"
    rows = rows[:-24] + rows[-24:]
    head = b"glibc-ld.so.cache1.1" + struct.pack("<2I20x", len(libraries), len(strings))
    path.write_bytes(b"ld.so-1.7.0\0" + bytes(4) + head + rows + strings)
    return str(path)


def test_libraries_of_the_linkers_cache(tmp_path: Path) -> None:
    known = [
        ("libc.so.6", "/l/libc.so.6"),
        ("libssl.so.3", "/l/libssl.so.3"),
        ("libssl.so.1.1", "/l/libssl.so.1.1"),
        ("libcrypt.so.1", "/l/libcrypt.so.1"),
    ]
    cache = cache_file(tmp_path / "cache", known)
    assert list(cached_libraries(cache)) == known
    assert find_binary("libc", cache=cache) == "/l/libc.so.6"
    assert find_binary("libssl.so.3", cache=cache) == "/l/libssl.so.3"
    with pytest.raises(ProbeError, match=r"means 2 files .*: /l/libssl.so.1.1, /l/libssl.so.3"):
        find_binary("libssl", cache=cache)
    with pytest.raises(ProbeError, match="did you mean libcrypt"):
        find_binary("libcrpt", cache=cache)


@pytest.mark.parametrize("content", [b"", b"junk", b"glibc-ld.so.cache1.1" + b"\xff" * 60])
def test_without_a_cache_libraries_are_looked_for(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache").write_bytes(content)
    library = tmp_path / "libodd-2.31.so"
    library.touch()
    found = find_binary(
        "libodd", cache=str(tmp_path / "cache"), directories=[str(tmp_path), "/nowhere"]
    )
    assert found == str(library)


def test_a_script_before_a_program_on_path(
    tmp_path: Path, binary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv("PATH", f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    script, program = tmp_path / "first" / "run", tmp_path / "second" / "run"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert find_binary("run") == str(script)
    program.write_bytes(Path(binary).read_bytes())
    program.chmod(0o755)
    with pytest.raises(ProbeError, match="first 'run' in PATH is a script") as caught:
        find_binary("run")
    assert f"write {program}" in caught.value.fix


def test_programs_are_found_on_path_and_paths_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "prog"
    program.write_bytes(b"")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary("prog", cache="/none") == str(program)
    assert find_binary("/x/../y") == "/y"
    monkeypatch.chdir(tmp_path)
    assert find_binary("./prog") == str(program)
    with pytest.raises(ProbeError, match="there is no program or library called 'gone'"):
        find_binary("gone", cache="/none", directories=())


MAPS = """\
400000-401000 r-xp 00000000 08:01 1 /usr/bin/app
600000-601000 r--p 00000000 08:01 1 /usr/bin/data
0007f000-00080000 r-xp 00000000 08:01 2 /usr/lib/libc-2.31.so
90000-91000 r-xp 00000000 08:01 3 /opt/lib odd.so (deleted)
a0000-a1000 r-xp 00000000 00:00 0 [vdso]
b0000-b1000 rwxp 00000000 00:00 0
"""


def process(proc: Path, root: str, mount: str) -> None:
    for pid, namespace in (("7", mount), ("self", "mnt:[1]")):
        (proc / pid / "ns").mkdir(parents=True)
        (proc / pid / "ns" / "mnt").symlink_to(namespace)
    (proc / "7" / "root").symlink_to(root)
    (proc / "7" / "maps").write_text(MAPS)


def test_a_process_that_sees_our_files(tmp_path: Path) -> None:
    process(tmp_path, "/", "mnt:[1]")
    proc = str(tmp_path)
    assert [m.name for m in mappings(7, proc)] == [
        "/usr/bin/app",
        "/usr/lib/libc-2.31.so",
        "/opt/lib odd.so",
    ]
    assert find_binary("libc", 7, proc=proc) == "/usr/lib/libc-2.31.so"
    assert find_binary("app", 7, proc=proc) == "/usr/bin/app"
    assert find_binary("/bin/x", 7, proc=proc) == "/bin/x"
    assert mappings(7, proc)[2].path == f"{proc}/7/map_files/90000-91000"


@pytest.mark.parametrize(("root", "mount"), [("/", "mnt:[2]"), ("/jail", "mnt:[1]")])
def test_a_process_in_a_container(tmp_path: Path, root: str, mount: str) -> None:
    process(tmp_path, root, mount)
    proc = str(tmp_path)
    assert find_binary("libc", 7, proc=proc) == f"{proc}/7/root/usr/lib/libc-2.31.so"
    assert find_binary("/bin/x", 7, proc=proc) == f"{proc}/7/root/bin/x"


def test_names_that_a_process_does_not_use(tmp_path: Path) -> None:
    process(tmp_path, "/", "mnt:[1]")
    none = {"cache": "/none", "proc": str(tmp_path)}
    with pytest.raises(ProbeError, match="there is no process 8"):
        find_binary("libc", 8, proc=str(tmp_path))
    with pytest.raises(ProbeError) as caught:
        find_binary("libzzz", 7, directories=(), **none)
    assert caught.value.why == "process 7 runs no code of a file called 'libzzz'"
    assert caught.value.fix == "it uses app, libc-2.31.so, lib odd.so"


def test_this_process() -> None:
    assert os.path.realpath("/proc/self/exe") in [m.path for m in mappings(os.getpid())]
