# SPDX-License-Identifier: Apache-2.0
"""A file system that a user serves may let every question wait: it is not asked any."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from probes.base import ProbeError
from probes.file_access import for_clients, set_asker
from probes.open_file import open_file

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


def heard(reading: int) -> str:
    ready, _, _ = select.select([reading], [], [], SECONDS)
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
