# SPDX-License-Identifier: Apache-2.0
"""A file system that a user serves may let every question wait: it is not asked any."""

from __future__ import annotations

import ctypes
import os
import re
import select
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from probes.core.errors import ProbeError
from probes.host.file_access import for_clients, set_asker
from probes.host.open_file import open_file

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and /dev/fuse"
)
_INIT, _LOOKUP = 26, 1
SECONDS = 30
"""Until a child that says nothing is taken to wait forever."""


def serve(fuse: int, answers: set[int], unanswered: int) -> None:
    """Answer the kernel's first questions about names; of any other, tell that it waits."""
    while True:
        request = os.read(fuse, 1 << 20)
        _, opcode, unique = struct.unpack_from("<2IQ", request)
        if opcode not in answers:
            os.write(unanswered, b"x")
            continue
        if opcode == _INIT:
            body = struct.pack("<5I2H2I2H", 7, 31, 0, 0, 0, 0, 0, 4096, 1, 1, 0).ljust(64, b"\0")
        else:
            # A regular file that everybody may run; what is known of it is old at once.
            attributes = struct.pack("<6Q10I", 2, 4096, 8, 0, 0, 0, *[0] * 3, 0o100755, 1, *[0] * 5)
            body = struct.pack("<4Q2I", 2, 1, 60, 0, 0, 0) + attributes
        os.write(fuse, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)


class Mount:
    """A FUSE mount, and the child that serves it."""

    def __init__(self, place: Path, answers: set[int]) -> None:
        self.place = place
        self._libc = ctypes.CDLL(None, use_errno=True)
        fuse = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other"
        name = os.fsencode(place)
        if self._libc.mount(b"none", name, b"fuse", 0, options.encode()) != 0:
            os.close(fuse)
            pytest.skip(f"FUSE cannot be mounted: {os.strerror(ctypes.get_errno())}")
        self.waiting, telling = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            with suppress(BaseException):
                serve(fuse, answers, telling)
            os._exit(0)
        os.close(telling)
        os.close(fuse)

    def close(self) -> None:
        """End the child, at which the kernel gives up all questions, and unmount."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
            os.close(self.waiting)
            self._libc.umount2(os.fsencode(self.place), 2)


@pytest.fixture
def mount() -> Iterator[Callable[[set[int]], Mount]]:
    place = Path("/tmp") / f"probetop-fuse-{os.getpid()}"
    place.mkdir(mode=0o755)
    made: list[Mount] = []

    def at(answers: set[int]) -> Mount:
        made.append(Mount(place, answers))
        return made[0]

    yield at
    for one in made:
        one.close()
    shutil.rmtree(place)


def asking(path: Path) -> tuple[int, int]:
    """A child that opens a file for a client of an agent, and where it says what came of it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "it was opened"
        set_asker(for_clients())
        try:
            open_file(str(path))
        except ProbeError as error:
            said = str(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    return pid, reading


def heard(reading: int, seconds: float = SECONDS) -> str:
    ready, _, _ = select.select([reading], [], [], seconds)
    return os.read(reading, 4096).decode() if ready else "nothing"


def test_a_file_is_refused_before_its_file_system_is_asked(
    mount: Callable[[set[int]], Mount],
) -> None:
    mounted = mount({_INIT, _LOOKUP})
    pid, reading = asking(mounted.place / "program")
    try:
        assert "lies on FUSE" in heard(reading)
    finally:
        mounted.close()
        os.waitpid(pid, 0)
        os.close(reading)


def test_who_waits_for_a_name_there_ends_with_it(mount: Callable[[set[int]], Mount]) -> None:
    """The name itself must be looked up; nothing but the child that does it waits for that."""
    mounted = mount({_INIT})
    pid, reading = asking(mounted.place / "program")
    pidfd = os.pidfd_open(pid)
    try:
        assert select.select([mounted.waiting], [], [], SECONDS)[0]
        os.kill(pid, signal.SIGKILL)
        mounted.close()
        assert select.select([pidfd], [], [], SECONDS)[0]
    finally:
        mounted.close()
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(pidfd)


OVER_FUSE = r"""
import ctypes, mmap, os, signal, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
uid, gid, quiet = os.geteuid(), os.getegid(), mmap.mmap(-1, 1)
data = open("/bin/true", "rb").read()

def check(result):
    if result < 0:
        print(os.strerror(ctypes.get_errno()), flush=True)
        os._exit(0)

def note(path, text):
    with open(path, "w") as file:
        file.write(text)

def attributes(inode):
    mode, size = (0o40755, 0) if inode == 1 else (0o100755, len(data))
    return struct.pack("<6Q10I", inode, size, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

def answer(opcode, node, body):
    if opcode == 26:
        return struct.pack("<5I2H2I2H", 7, 31, 0, 0, 0, 0, 0, 4096, 1, 1, 0).ljust(64, b"\0")
    if opcode == 1:
        if body.rstrip(b"\0") != b"app":
            return -2
        return struct.pack("<4Q2I", 2, 1, 3600, 0, 0, 0) + attributes(2)
    if opcode == 3:
        return struct.pack("<QII", 0, 0, 0) + attributes(node)
    if opcode in (14, 27):
        return struct.pack("<Q2I", 1, 2 * (opcode == 14), 0)
    if opcode == 15:
        _, offset, size = struct.unpack_from("<2QI", body)
        return data[offset : offset + size]
    if opcode == 17:
        return struct.pack("<5Q4I24x", 0, 0, 0, 0, 0, 4096, 255, 0, 0)
    return b"" if opcode in (18, 25, 28, 29) else -38

def serve(fuse):
    while True:
        request = os.read(fuse, 1 << 20)
        _, opcode, unique, node = struct.unpack_from("<2I2Q", request)
        if quiet[0] or opcode in (2, 36, 42):
            continue
        said = answer(opcode, node, request[40:])
        error, body = (said, b"") if isinstance(said, int) else (0, said)
        try:
            os.write(fuse, struct.pack("<IiQ", 16 + len(body), error, unique) + body)
        except OSError:
            pass

check(libc.unshare(0x10020000))
note("/proc/self/setgroups", "deny")
note("/proc/self/uid_map", f"0 {uid} 1")
note("/proc/self/gid_map", f"0 {gid} 1")
check(libc.mount(b"none", b"/", None, 0x44000, None))
check(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None))
for name in ("lower", "empty", "over"):
    os.mkdir("/mnt/" + name)
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
check(libc.mount(b"none", b"/mnt/lower", b"fuse", 6, options.encode()))
server = os.fork()
if server == 0:
    libc.prctl(1, 9)
    serve(fuse)
check(libc.mount(b"none", b"/mnt/over", b"overlay", 0, b"lowerdir=/mnt/lower:/mnt/empty"))
app = os.open("/mnt/over/app", os.O_RDONLY)
code = mmap.mmap(app, len(data), mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
os.chroot("/mnt/over")
quiet[0] = 1
os.close(fuse)
print("ready", flush=True)
signal.pause()
"""


def test_what_lies_below_an_overlay_of_a_user_is_not_asked_either(tmp_path: Path) -> None:
    """Everybody who has a user namespace can mount one over a FUSE of their own."""
    command = ["/usr/bin/python3", "-c", OVER_FUSE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            if said != "ready":
                pytest.skip(f"no overlay over FUSE in a user namespace: {said}")
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            found = re.search(r"^(\S+) r-xp .* (/\S*app)$", maps, re.MULTILINE)
            assert found
            below = f"/proc/{process.pid}"
            links = [f"map_files/{found[1]}", f"root{found[2]}", "root/missing"]
            server = int(children.read_text())
            told = {}
            for path in [f"{tmp_path}/missing", *(f"{below}/{link}" for link in links)]:
                pid, reading = asking(Path(path))
                told[path] = heard(reading, 10)
                os.kill(pid, signal.SIGKILL)
                if told[path] == "nothing":
                    # Whoever waits for that FUSE ends with its server only.
                    os.kill(server, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(reading)
            assert [path for path in told if "no process executes it" not in told[path]] == []
        finally:
            # Its end would wait for its server, too.
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
            process.kill()
