# SPDX-License-Identifier: Apache-2.0
"""Files that processes run, found by their names in /proc/PID/maps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.host import executed_files, mapped_files
from probes.host import open_file as open_file_module
from probes.host.file_access import for_clients, set_asker
from probes.host.open_file import open_file
from probes.host.privileges import User
from probes.symbols.binaries import mappings
from tests.unit.probes.host.test_file_access import IN_A_ROOT, place, policy, refusal, root
from tui.settings.validators import check_pid

__all__ = ["place", "policy"]


class Sleeper:
    """A copy of sleep(1) that runs; `path` is where it was copied to."""

    def __init__(self, path: Path) -> None:
        shutil.copy("/bin/sleep", path)
        path.chmod(0o700)
        self.path = path
        self.process = subprocess.Popen([str(path), "60"])

    def __enter__(self) -> int:
        # Popen returns when the program is executed, which may be before its code is mapped.
        end = time.monotonic() + 20
        while not self._is_mapped():
            assert time.monotonic() < end
            time.sleep(0.001)
        return self.process.pid

    def _is_mapped(self) -> bool:
        lines = Path(f"/proc/{self.process.pid}/maps").read_bytes().splitlines()
        inode = b"%d" % self.path.stat().st_ino
        found = [words for line in lines if len(words := line.split()) > 5]
        return any(words[1] == b"r-xp" and words[4] == inode for words in found)

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def private(place: Path) -> Path:
    """A directory that only root may search."""
    directory = place / "private"
    directory.mkdir(mode=0o700)
    return directory


@root
def test_as_root_nothing_is_looked_up_that_somebody_asked_for(
    place: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of it would tell which directories there are."""
    (private / "there").mkdir()
    (private / "there" / "x").write_text("x")
    (place / "in").symlink_to("private/there")
    (place / "jail").mkdir()
    looked: list[str] = []

    def spying(real: Callable[..., int]) -> Callable[..., int]:
        def spy(*given: object, **more: object) -> int:
            if os.geteuid() == 0:
                looked.extend(one for one in given if isinstance(one, str))
            return real(*given, **more)

        return spy

    jailed = ["/usr/bin/python3", "-c", IN_A_ROOT, str(place / "jail")]
    with subprocess.Popen(jailed, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            set_asker(for_clients())
            for module, name in ((open_file_module, "open_below"), (os, "open"), (os, "lstat")):
                monkeypatch.setattr(module, name, spying(getattr(module, name)))
            below = f"/proc/{process.pid}/root"
            for path in (private, place / "in", Path(below + "/in"), Path(below + "/etc")):
                for name in ("x", "there/x", "missing", "missing/x"):
                    refusal(path / name)
            monkeypatch.undo()
        finally:
            process.kill()
    assert looked
    assert [path for path in looked if str(place) in path or path.startswith(below + "/")] == []
    assert not {"/in/x", "/etc/x", "/etc/missing"} & set(looked)


@root
@pytest.mark.parametrize(
    "name", ["plain", "two  words", "x (deleted)", "a\nb", "a\\012b", "\udcff"]
)
def test_a_program_that_runs_is_found_by_its_name(private: Path, name: str) -> None:
    path = private / name
    with Sleeper(path) as pid:
        set_asker(for_clients())
        assert open_file(str(path)).stat.st_ino == path.stat().st_ino
        (private / "other").write_text("x")
        assert "no process executes it" in refusal(private / "other")
        path.unlink()
        assert "no process executes it" in refusal(path)
        deleted = mappings(pid)[0]
        assert open_file(deleted.path).read(4, 0) == b"\x7fELF"
        start, _, end = deleted.path.rpartition("/")[2].partition("-")
        assert "no process executes it" in refusal(f"/proc/{pid}/map_files/{start}-{end}0")


@root
def test_links_count_as_far_as_the_person_who_asks_sees_them(place: Path, private: Path) -> None:
    program = private / "sleeper"
    (place / "absolute").symlink_to(program)
    (place / "folder").symlink_to("private")
    (private / "inner").symlink_to("sleeper")
    (place / "readable").mkdir()
    with Sleeper(program), Sleeper(place / "readable" / "only-run"):
        (place / "readable" / "link").symlink_to("only-run")
        set_asker(for_clients())
        for path in ("absolute", "folder/sleeper", "readable/only-run", "readable/link"):
            assert open_file(str(place / path)).read(4, 0) == b"\x7fELF"
        for path in ("folder/inner", "private/inner", "private/sleeper/x"):
            assert "no process executes it" in refusal(place / path)


@root
@pytest.mark.parametrize("map_files", [True, False])
def test_a_program_in_another_root_is_found_by_its_name(
    place: Path, map_files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links of map_files take a capability that containers seldom have."""
    jail = place / "private" / "jail"
    (jail / "usr" / "lib").mkdir(parents=True)
    (place / "private").chmod(0o700)
    (jail / "lib").symlink_to("usr/lib")
    (jail / "usr" / "lib" / "link").symlink_to("busy")
    source = place / "busy.c"
    source.write_text("#include <unistd.h>\nint main(void) { pause(); }\n")
    busy = jail / "usr" / "lib" / "busy"
    subprocess.run(["cc", "-static", "-o", str(busy), str(source)], check=True)
    real = os.open

    def refused(path: str, *more: int, **others: int) -> int:
        if "map_files" in str(path):
            raise PermissionError(1, "Operation not permitted")
        return real(path, *more, **others)

    command = ["chroot", str(jail), "/lib/busy"]
    with subprocess.Popen(command) as process:
        try:
            while os.readlink(f"/proc/{process.pid}/exe") != str(busy):
                assert process.poll() is None
            set_asker(for_clients())
            if not map_files:
                monkeypatch.setattr(os, "open", refused)
            below = f"/proc/{process.pid}/root"
            for path in (f"{below}/usr/lib/busy", f"{below}/lib/busy", str(busy)):
                file = open_file(path)
                assert file.stat.st_ino == busy.stat().st_ino
            for name in ("usr/lib/link", "usr/lib/missing", "busy", str(busy)):
                assert "no process executes it" in refusal(f"{below}/{name}")
        finally:
            process.kill()


MOUNTED_OVER = """
set -e
mount -t tmpfs none "$1"
cp /bin/sleep "$1/sleeper"
exec "$1/sleeper" 60
"""


@root
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_a_file_of_that_name_on_a_mount_of_somebody_else_is_another(private: Path) -> None:
    """Whoever has a mount namespace can have any name in the list of what is mapped."""
    command = ["unshare", "-m", "sh", "-c", MOUNTED_OVER, "sh", str(private)]
    with subprocess.Popen(command) as process:
        try:
            while os.readlink(f"/proc/{process.pid}/exe") != f"{private}/sleeper":
                assert process.poll() is None
            set_asker(for_clients())
            assert "no process executes it" in refusal(private / "sleeper")
            below = f"/proc/{process.pid}/root{private}/sleeper"
            assert open_file(below).read(4, 0) == b"\x7fELF"
        finally:
            process.kill()


def test_what_one_process_has_mapped_is_read_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mapped_files.of_process(os.getpid())
    assert whole[0].name == os.fsencode(os.path.realpath("/proc/self/exe"))
    monkeypatch.setattr(mapped_files, "MOST_BYTES", 1)
    monkeypatch.setattr(mapped_files, "_PART", 300)
    assert len(mapped_files.of_process(os.getpid())) < len(whole)


@root
def test_whoever_has_much_mapped_hides_only_what_is_theirs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All processes of a user are read to a limit, and all processes for a while."""
    names = ("first", "second", "other")
    with (
        Sleeper(place / "first") as a,
        Sleeper(place / "second") as b,
        Sleeper(place / "other") as c,
    ):
        monkeypatch.setattr(mapped_files, "_processes", lambda: [(12345, a), (12345, b), (0, c)])
        monkeypatch.setattr(mapped_files, "MOST_BYTES_OF_USER", 1)
        inodes = {inode for _, inode in mapped_files.executed().files}
        assert [(place / name).stat().st_ino in inodes for name in names] == [True, False, True]
        monkeypatch.setattr(mapped_files, "MOST_SECONDS", -1.0)
        assert mapped_files.executed().files == frozenset()


NAMED = """
import ctypes, os, sys
assert ctypes.CDLL(None).prctl(15, b"x\\rUid:\\t0\\rGid:\\t0", 0, 0, 0) == 0  # PR_SET_NAME
os.setresgid(12345, 12345, 12345)
os.setresuid(12345, 12345, 12345)
print("ready", flush=True)
sys.stdin.read()
"""


@root
def test_a_name_says_nothing_of_whose_a_process_is() -> None:
    """A carriage return within it ends no line of /proc/PID/status."""
    command = [sys.executable, "-c", NAMED]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert executed_files._user_of(process.pid) == User(12345, 12345, None)
        assert check_pid(process.pid) == process.pid
        assert process.stdin is not None
        process.stdin.close()


MOUNTS = """
import ctypes, os, sys
from probes.host import lookup
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
assert libc.mount(None, b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
before = lookup.mounts("self")
place = os.fsencode(sys.argv[1])
os.mkdir(place)
assert libc.mount(b"none", place, b"ramfs", 0, None) == 0
after = lookup.mounts("self")
new = after.keys() - before.keys()
print(len(new), *[after[number].kind for number in new], all(after[n] == before[n] for n in before))
"""


@root
@pytest.mark.parametrize("name", ["a\r46", "a\x0b46 b", "a\x85", "a\u2028 - x"])
def test_a_mount_of_any_name_is_one_mount(place: Path, name: str) -> None:
    command = [sys.executable, "-c", MOUNTS, str(place / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "1 ramfs True\n"
