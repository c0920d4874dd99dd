# SPDX-License-Identifier: Apache-2.0
"""Debug files are believed only if nobody else than the program's owner can have made them."""

from __future__ import annotations

import os
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.host.open_file import OpenFile
from probes.symbols import debug_files, functions
from tests.unit.elf_file import FUNC, GLOBAL, LOCAL, ElfFile, Row

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make files of others")
API: list[Row] = [("api", FUNC, GLOBAL, 1, 1)]
INNER: list[Row] = [("inner", FUNC, LOCAL, 0x20, 4)]
STRANGER = 12345


def with_debug_file(folder: Path, build_id: bytes = b"\xab\xcd") -> tuple[Path, Path]:
    """A stripped program and its debug file beside it."""
    program, debug = folder / "x", folder / ".debug" / "x.debug"
    debug.parent.mkdir(exist_ok=True)
    program.write_bytes(ElfFile(dynsym=API, build_id=build_id, debuglink="x.debug").build())
    debug.write_bytes(ElfFile(symtab=INNER, build_id=build_id).build())
    return program, debug


def names(path: object) -> set[str]:
    functions._functions_of.clear()
    return set(functions.functions(str(path), "/nowhere"))


def test_of_the_same_owner(tmp_path: Path) -> None:
    program, debug = with_debug_file(tmp_path)
    assert names(program) == {"api", "inner"}
    debug.rename(tmp_path / "elsewhere")
    debug.symlink_to(tmp_path / "elsewhere")
    assert names(program) == {"api", "inner"}


@root
@pytest.mark.parametrize(
    "spoil",
    [
        lambda program, debug: os.chown(debug, STRANGER, 0),
        lambda program, debug: debug.chmod(0o664),
        lambda program, debug: debug.chmod(0o646),
        lambda program, debug: [shutil.chown(path, 65534) for path in (program, debug)],
    ],
    ids=["another owner", "its group may write", "everybody may write", "an unknown owner"],
)
def test_that_somebody_else_can_have_made(
    tmp_path: Path, spoil: Callable[[Path, Path], object]
) -> None:
    program, debug = with_debug_file(tmp_path)
    spoil(program, debug)
    assert names(program) == {"api"}


@root
def test_the_owner_of_a_program_is_believed_about_it(tmp_path: Path) -> None:
    program, debug = with_debug_file(tmp_path)
    for path in (program, debug):
        os.chown(path, STRANGER, 0)
    assert names(program) == {"api", "inner"}
    os.chown(debug, 0, 0)
    assert names(program) == {"api", "inner"}


@root
def test_a_link_in_a_folder_of_somebody_else(tmp_path: Path) -> None:
    """A link to a program can lie beside a link to any other file of the program's owner."""
    program, debug = with_debug_file(tmp_path)
    debug.rename(tmp_path / "copied")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, STRANGER, STRANGER)
    (theirs / "x").symlink_to(program)
    (theirs / "x.debug").symlink_to(tmp_path / "copied")
    for path in (theirs / "x", f"/proc/{os.getpid()}/root{theirs}/x"):
        assert names(path) == {"api"}


@root
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_in_a_folder_that_others_may_write(tmp_path: Path, mode: int) -> None:
    program, _ = with_debug_file(tmp_path)
    assert names(program) == {"api", "inner"}
    (tmp_path / ".debug").chmod(mode)
    os.utime(program)
    assert names(program) == {"api"}


@root
def test_a_folder_of_its_own_below_one_that_all_may_write(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    own = shared / "own"
    own.mkdir(parents=True)
    shared.chmod(0o1777)
    program, _ = with_debug_file(own)
    assert names(program) == {"api", "inner"}
    shared.chmod(0o777)
    os.utime(program)
    assert names(program) == {"api"}


def test_links_of_root_lead_to_debug_files(tmp_path: Path) -> None:
    """Debug files by build id are links in some distributions."""
    program, debug = with_debug_file(tmp_path)
    by_id = tmp_path / "debug" / ".build-id" / "ab" / "cd.debug"
    by_id.parent.mkdir(parents=True)
    debug.rename(tmp_path / "x-1.2.debug")
    by_id.symlink_to("../../../x-1.2.debug")
    functions._functions_of.clear()
    assert set(functions.functions(str(program), str(tmp_path / "debug"))) == {"api", "inner"}


@root
@pytest.mark.parametrize(
    "privilege",
    [
        lambda program: program.chmod(0o4755),
        lambda program: program.chmod(0o2755),
        lambda program: os.setxattr(
            program, "security.capability", bytes.fromhex("0100000200040000" + 24 * "0")
        ),
    ],
    ids=["setuid", "setgid", "capabilities"],
)
def test_a_program_with_privileges_speaks_for_itself(
    tmp_path: Path, privilege: Callable[[Path], object]
) -> None:
    program, _ = with_debug_file(tmp_path)
    assert names(program) == {"api", "inner"}
    privilege(program)
    os.utime(program)
    assert names(program) == {"api"}


def test_on_an_overlay_no_debug_file_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A breakpoint goes into the file below it, which can be another person's."""
    program, _ = with_debug_file(tmp_path)
    assert names(program) == {"api", "inner"}
    os.utime(program)
    monkeypatch.setattr(OpenFile, "is_overlaid", True)
    assert names(program) == {"api"}


def test_without_a_build_id_the_checksum_decides(tmp_path: Path) -> None:
    program, debug = with_debug_file(tmp_path, b"")
    assert names(program) == {"api"}
    data = program.read_bytes()
    # The checksum is behind the name and its padding.
    link = b"x.debug\0" + bytes(4)
    assert data.count(link) == 1
    crc = zlib.crc32(debug.read_bytes()).to_bytes(4, "little")
    program.write_bytes(data.replace(link, b"x.debug\0" + crc))
    assert names(program) == {"api", "inner"}
    program.write_bytes(data.replace(link, b"x.debug\0" + crc[::-1]))
    assert names(program) == {"api"}


def test_a_name_cannot_lead_to_another_directory(tmp_path: Path) -> None:
    _, debug = with_debug_file(tmp_path)
    (tmp_path / "sub").mkdir()
    shutil.move(debug, tmp_path / "x.debug")
    file = ElfFile(dynsym=API, build_id=b"\xab\xcd", debuglink="../x.debug")
    (tmp_path / "sub" / "x").write_bytes(file.build())
    assert names(tmp_path / "sub" / "x") == {"api"}


MOUNTED = """
set -e
mount --bind "$1/program" "$1/root/program"
mount --bind "$1/forged" "$1/root/.debug/x.debug"
echo ready
exec chroot "$1/root" /busy
"""


@root
@pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("unshare")), reason="needs cc, unshare"
)
def test_a_file_that_was_mounted_into_a_root_is_not_believed_there(tmp_path: Path) -> None:
    """Who has a mount namespace of their own decides what lies beside a program of the machine."""
    jail = tmp_path / "root"
    (jail / ".debug").mkdir(parents=True)
    for name in ("program", ".debug/x.debug"):
        (jail / name).touch()
    program = ElfFile(dynsym=API, build_id=b"\xab\xcd", debuglink="x.debug")
    (tmp_path / "program").write_bytes(program.build())
    (tmp_path / "forged").write_bytes(ElfFile(symtab=INNER, build_id=b"\xab\xcd").build())
    source = tmp_path / "busy.c"
    source.write_text("#include <unistd.h>\nint main(void) { pause(); }\n")
    subprocess.run(["cc", "-static", "-o", str(jail / "busy"), str(source)], check=True)
    command = ["unshare", "-m", "sh", "-c", MOUNTED, "sh", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            while os.readlink(f"/proc/{process.pid}/root") == "/":
                assert process.poll() is None
            below = f"/proc/{process.pid}/root"
            assert names(f"{below}/program") == {"api"}
            shutil.copy(tmp_path / "program", jail / "own")
            own = ElfFile(dynsym=API, build_id=b"\xab\xcd", debuglink="own.debug")
            (jail / "own").write_bytes(own.build())
            shutil.copy(tmp_path / "forged", jail / ".debug" / "own.debug")
            assert names(f"{below}/own") == {"api", "inner"}
            (jail / ".debug" / "own.debug").chmod(0o600)
            assert names(f"{below}/own") == {"api", "inner"}
        finally:
            process.kill()


def test_the_limit_of_unpacking_is_more_than_the_best_compression_takes() -> None:
    assert debug_files.MOST_MEMORY > 65 << 20
