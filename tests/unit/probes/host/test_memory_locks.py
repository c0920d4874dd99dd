# SPDX-License-Identifier: Apache-2.0
"""Somebody can hold the lock of a process's memory for ever: nobody waits for it."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from probes.bpf.attach import Attacher
from probes.bpf.plan import Attach
from probes.core.errors import ProbeError
from probes.host import executed_files, killable_child, mapped_files, memory_locks
from probes.host.open_file import open_file
from probes.symbols import binaries
from tests.paths import ROOT

needs_fuse = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and /dev/fuse"
)
SECONDS = 30
"""Until a process that says nothing is taken to wait for ever."""
_GETATTR, _OPEN, _READ, _INIT = 3, 14, 15, 26
MAPPER = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
unread, own = (open(path, "rb", buffering=0) for path in sys.argv[1:])
libc.mmap(None, 4096, 5, 2, own.fileno(), 0)
print(libc.mmap(None, 4096, 1, 2, unread.fileno(), 0), flush=True)
sys.stdin.readline()
libc.mmap(None, 4096, 1, 0x22, -1, 0)
"""
"""Maps a file, and one to execute it; having read a line, it waits to change its memory."""
READER = "import os, sys; os.pread(os.open(sys.argv[1], os.O_RDONLY), 8, int(sys.argv[2]))"


def serve(fuse: int, asked: int) -> None:
    """Serve a file system that is one file, and answer nobody who reads it."""
    attributes = struct.pack("<6Q10I", 1, 4096, 8, 0, 0, 0, *[0] * 3, 0o100644, 1, *[0] * 5)
    bodies = {
        _INIT: struct.pack("<5I2H2I2H", 7, 31, 0, 0, 0, 0, 0, 4096, 1, 1, 0).ljust(64, b"\0"),
        _GETATTR: struct.pack("<Q2I", 60, 0, 0) + attributes,
        _OPEN: struct.pack("<Q2I", 1, 0, 0),
    }
    while True:
        _, opcode, unique = struct.unpack_from("<2IQ", os.read(fuse, 1 << 20))
        if opcode == _READ:
            os.write(asked, b"x")
        elif opcode in bodies:
            os.write(fuse, struct.pack("<IiQ", 16 + len(bodies[opcode]), 0, unique)
                     + bodies[opcode])  # fmt: skip
        else:
            os.write(fuse, struct.pack("<IiQ", 16, -38, unique))


@contextmanager
def unread(place: Path) -> Iterator[tuple[int, int]]:
    """A file that every read waits for: what tells when one does, and the process that serves."""
    place.touch()
    libc = ctypes.CDLL(None, use_errno=True)
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=100000,user_id=0,group_id=0"
    if libc.mount(b"none", os.fsencode(place), b"fuse", 0, options.encode()) != 0:
        os.close(fuse)
        pytest.skip(f"FUSE cannot be mounted: {os.strerror(ctypes.get_errno())}")
    waiting, telling = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            serve(fuse, telling)
        os._exit(0)
    os.close(telling)
    os.close(fuse)
    try:
        yield waiting, pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(waiting)
        libc.umount2(os.fsencode(place), 2)


@pytest.fixture(params=[False, True], ids=["for reading", "and somebody waits to change it"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """A process whose memory's lock is held."""
    with unread(tmp_path / "unread") as (waiting, server):
        (tmp_path / "own").write_bytes(bytes(4096))
        command = [sys.executable, "-c", MAPPER, str(tmp_path / "unread"), str(tmp_path / "own")]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as mapper:
            assert mapper.stdin is not None
            assert mapper.stdout is not None
            address = mapper.stdout.readline().strip()
            command = [sys.executable, "-c", READER, f"/proc/{mapper.pid}/mem", address]
            with subprocess.Popen(command) as reader:
                try:
                    assert os.read(waiting, 1) == b"x"
                    if request.param:
                        mapper.stdin.write("\n")
                        mapper.stdin.flush()
                        wait_until_it_waits(mapper.pid)
                    memory_locks._known = None
                    mapped_files._known = None
                    yield mapper.pid
                finally:
                    # The reader can end only then.
                    os.kill(server, signal.SIGKILL)
                    reader.kill()
                    mapper.kill()
                    memory_locks._known = None
                    mapped_files._known = None


def wait_until_it_waits(pid: int) -> None:
    last = time.monotonic() + SECONDS
    while ") D" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < last
        time.sleep(0.01)


def finishes(code: str) -> None:
    """A process that runs some code ends, without an exception."""
    root = ROOT
    subprocess.run([sys.executable, "-c", code], check=True, timeout=SECONDS, cwd=root)


@needs_fuse
def test_a_process_that_does_not_answer(held: int) -> None:
    with pytest.raises(ProbeError, match=f"process {held} does not let its memory"):
        memory_locks.check_process(held)
    memory_locks.check_process(os.getpid())
    for read in (mapped_files.of_process, binaries.mappings):
        with pytest.raises(ProbeError, match=f"process {held} "):
            read(held)


@needs_fuse
def test_no_uprobe_goes_into_what_it_runs(held: int, tmp_path: Path) -> None:
    """The kernel would wait for it, and nobody on the machine could fork."""

    def asked(_: str) -> bytes:
        raise AssertionError("it would be attached")

    attacher = Attacher(asked, lambda _: None)
    python = open_file(os.path.realpath(sys.executable))
    (tmp_path / "other").write_bytes(b"x")
    other = open_file(str(tmp_path / "other"))
    for file, expected in ((python, ProbeError), (other, AssertionError)):
        wish = Attach(kind="uprobe", function="f", path=file.link, file=file, offset=64)
        with pytest.raises(expected, match=f"process {held} |would be"):
            attacher.attach_batch([wish])


@needs_fuse
def test_what_others_execute_is_found_all_the_same(held: int) -> None:
    """Whoever lets the kernel wait hides what is theirs, and holds up nobody."""
    finishes("from probes.host import mapped_files as mapped; assert mapped.executed().files")


@needs_fuse
def test_a_file_is_not_opened_through_it(held: int) -> None:
    one = mapped_files.Mapped(held, "1000-2000", b"/x", (1, 1))
    assert executed_files._through([one], -1) is None


@pytest.mark.parametrize("ending", ["dies", "raises"])
def test_a_child_that_ends_gives_no_more_answers(ending: str) -> None:
    def work(number: int) -> bytes:
        if number == 2 and ending == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return b"x" * (10 // (2 - number))

    assert list(killable_child.answers([0, 1, 2, 3], work, SECONDS)) == [b"x" * 5, b"x" * 10]


def test_a_child_that_waits_is_given_up() -> None:
    def work(number: int) -> bytes:
        time.sleep(SECONDS * number)
        return bytes([number])

    start = time.monotonic()
    assert list(killable_child.answers([0, 1, 0], work, 0.05)) == [b"\0"]
    assert time.monotonic() - start < SECONDS


def test_a_child_that_works_is_waited_for() -> None:
    """A busy machine is no reason to take a process for one that does not answer."""

    def work(number: int) -> bytes:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass
        return b"done"

    assert list(killable_child.answers([0], work, 0.05)) == [b"done"]


def test_it_keeps_nothing_open_that_keeps_programs_attached(tmp_path: Path) -> None:
    with open(tmp_path / "link", "w", encoding="ascii") as file:
        number = file.fileno()

        def work(_: int) -> bytes:
            return b"open" if os.path.exists(f"/proc/self/fd/{number}") else b"closed"

        assert list(killable_child.answers([0], work, SECONDS)) == [b"closed"]


LEADERLESS = """
import ctypes, os, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print(*os.listdir("/proc/self/task"), flush=True)
ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit, not exit_group
"""


def test_the_memory_of_a_process_without_its_first_thread_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, bool] = {}
    has_memory = memory_locks._has_memory

    def noted(task: str) -> bool:
        return asked.setdefault(task, has_memory(task))

    monkeypatch.setattr(memory_locks, "_has_memory", noted)
    command = [sys.executable, "-c", LEADERLESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            pid = process.pid
            (other,) = {int(word) for word in process.stdout.readline().split()} - {pid}
            end = time.monotonic() + SECONDS
            while "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
                assert time.monotonic() < end
                time.sleep(0.01)
            memory_locks._ask(pid)
        finally:
            process.kill()
    assert asked[f"/proc/{pid}"] is False
    assert asked[f"/proc/{pid}/task/{other}"] is True


def test_many_that_answer_slowly_are_waited_for_together_to_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[object] = []

    def slow(pids: object, ask: object, seconds: float) -> Iterator[bytes]:
        calls.append(pids)
        while True:
            time.sleep(0.01)
            yield b""

    monkeypatch.setattr(memory_locks, "_known", None)
    monkeypatch.setattr(memory_locks, "MOST_SECONDS", 0.1)
    monkeypatch.setattr(killable_child, "answers", slow)
    for _ in range(2):
        with pytest.raises(ProbeError, match="too long"):
            memory_locks.check(open_file("/bin/true"))
    # It is not tried again for each target.
    assert len(calls) == 1


def test_nothing_is_left_of_a_question_for_which_no_descriptor_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def wait(item: int) -> bytes:
        time.sleep(SECONDS)
        return b""

    before = set(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", fail)
        with pytest.raises(OSError, match="open files"):
            list(killable_child.answers([1], wait, SECONDS))
    # The listing has a descriptor of its own while it is made, under the same number.
    assert set(os.listdir("/proc/self/fd")) == before
    (pid,) = killable_child._lingering
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    killable_child._reap()
    assert not killable_child._lingering
