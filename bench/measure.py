# SPDX-License-Identifier: Apache-2.0
"""What is attached while something is timed, and C programs that time it.

Variants take turns, round after round, and the fastest round of each counts: the machine's
other work, its frequency and its heat change over minutes, and all of them only ever add.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from probes import bpfsys
from tui.registry import REGISTRY

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
START_SECONDS = 20.0
ALONE_SECONDS = 6.0
GET_NEXT_ID, GET_FD_BY_ID = 11, 13
"""Commands of bpf(2): the next program's id, a descriptor of a program."""
TRACING = frozenset({2, 5, 7, 17, 26})
"""Program types: kprobe, tracepoint, perf event, raw tracepoint, tracing."""
KTIME_GET_NS = 5
"""Number of the helper bpf_ktime_get_ns."""

AT_START = tuple(entry.name for entry in REGISTRY if entry.on_at_start)
EMPTY = bpfsys.RETURN_0
CLOCK = bpfsys.insn(bpfsys.CALL, imm=KTIME_GET_NS) + bpfsys.RETURN_0

Attach = Callable[[], AbstractContextManager[object]]


class BenchError(Exception):
    """Something could not be measured."""


def compiled(folder: Path, *names: str) -> dict[str, Path]:
    """The C programs of this folder, as static executables in `folder`."""
    out: dict[str, Path] = {}
    for name in names:
        out[name] = folder / name
        source = str(HERE / f"{name}.c")
        subprocess.run(["gcc", "-O2", "-static", "-o", str(out[name]), source], check=True)
    return out


def timed(*command: object) -> float:
    """The number that a program prints."""
    words = [str(word) for word in command]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


@contextmanager
def bare(*programs: tuple[bytes, str]) -> Iterator[None]:
    """Raw tracepoint programs, each as instructions and the tracepoint's name."""
    fds: list[int] = []
    try:
        for code, name in programs:
            fds.append(bpfsys.prog_load(bpfsys.PROG_RAW_TRACEPOINT, code))
            fds.append(bpfsys.raw_tracepoint_open(fds[-1], name))
        yield
    finally:
        for fd in reversed(fds):
            os.close(fd)


@contextmanager
def probetop(
    *on: str, options: Mapping[str, Mapping[str, object]] | None = None, always: bool = False
) -> Iterator[None]:
    """The project's own probes, polled once a second; raises BenchError if they do not run."""
    wish = json.dumps({"on": on, "options": options or {}, "always": always})
    with subprocess.Popen(
        [sys.executable, "-m", "bench.attached", wish],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        if said != "on":
            process.kill()
            raise BenchError(f"probetop {wish}: {said or 'ended'}")
        yield
        process.stdin.close()


@contextmanager
def tool(*command: str) -> Iterator[None]:
    """Another program that attaches BPF programs, from when it has done so until its end."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + START_SECONDS
            while not _holds_programs(process.pid):
                if process.poll() is not None or time.monotonic() > end:
                    raise BenchError(f"{' '.join(command)} did not attach anything")
                time.sleep(0.02)
            time.sleep(0.5)  # loaded comes before attached
            yield
        finally:
            process.terminate()


@contextmanager
def perf_stat(events: Sequence[str]) -> Iterator[None]:
    """perf counting events on all CPUs."""
    command = ["perf", "stat", "-a", "-e", ",".join(events)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            time.sleep(0.5)
            if process.poll() is not None:
                raise BenchError(f"{' '.join(command)} ended")
            yield
        finally:
            process.terminate()


def _holds_programs(pid: int) -> bool:
    folder = Path(f"/proc/{pid}/fdinfo")
    try:
        return any("prog_id" in path.read_text() for path in folder.iterdir())
    except OSError:
        return False


def tracing_programs() -> set[int]:
    """The ids of all BPF programs in the kernel that trace: whoever's, they cost every call."""
    found: set[int] = set()
    at = 0
    while True:
        buffer = ctypes.create_string_buffer(struct.pack("=3I", at, 0, 0), 12)
        try:
            _bpf(GET_NEXT_ID, buffer)
        except FileNotFoundError:
            return found
        at = struct.unpack_from("=2I", buffer)[1]
        with contextlib.suppress(FileNotFoundError):  # it has just gone
            fd = _bpf(GET_FD_BY_ID, ctypes.create_string_buffer(struct.pack("=3I", at, 0, 0), 12))
            if int(bpfsys.fdinfo(fd)["prog_type"]) in TRACING:
                found.add(at)
            os.close(fd)


def _bpf(command: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    return bpfsys._syscall(0, ctypes.c_long(command), attr, ctypes.c_ulong(len(attr)))


def wait_until_alone() -> bool:
    """Wait a while until nobody traces; False if somebody still does."""
    end = time.monotonic() + ALONE_SECONDS
    while tracing_programs():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


class Turns(NamedTuple):
    """What was measured, by variant, and how often somebody else's programs were attached."""

    values: dict[str, list[float]]
    disturbed: int


def take_turns(
    variants: Mapping[str, Attach],
    measure: Callable[[], float],
    rounds: int,
    say: Callable[[str], None],
) -> Turns:
    """Measures with each variant attached, once a round, with nobody else tracing if possible."""
    out: dict[str, list[float]] = {name: [] for name in variants}
    disturbed = 0
    for number in range(rounds):
        say(f"  round {number + 1} of {rounds}")
        for name, attach in variants.items():
            alone = wait_until_alone()
            with attach():
                ours = tracing_programs() if alone else set()
                out[name].append(measure())
                alone = alone and tracing_programs() == ours
            disturbed += not alone
    return Turns(out, disturbed)


def call_variants(has: Callable[[str], object]) -> dict[str, Attach]:
    """What is compared for its cost to a system call, the bare kernel first."""
    both: Sequence[str] = ("sys_enter", "sys_exit")
    out: dict[str, Attach] = {
        "nothing": nullcontext,
        "one empty program": lambda: bare((EMPTY, "sys_exit")),
        "two empty programs": lambda: bare(*[(EMPTY, name) for name in both]),
        "two programs that read the clock": lambda: bare(*[(CLOCK, name) for name in both]),
        "probetop, system calls": lambda: probetop("syscalls"),
        "the same with --cost always": lambda: probetop("syscalls", always=True),
        "probetop, system calls with --latency": lambda: probetop(
            "syscalls", options={"syscalls": {"latency": True}}
        ),
        "probetop, all probes on at its start": lambda: probetop(*AT_START),
    }
    if has("syscount"):
        out["syscount (libbpf-tools)"] = lambda: tool("syscount", "-d", "999")
        out["syscount -L (libbpf-tools)"] = lambda: tool("syscount", "-L", "-d", "999")
    return out


FOUR = ("minor-faults", "alignment-faults", "emulation-faults", "dummy")
"""Events that every machine has, and whose readings cost what those of any other cost."""


def switch_variants(has: Callable[[str], object]) -> dict[str, Attach]:
    """What is compared for its cost to a context switch."""
    out: dict[str, Attach] = {
        "nothing": nullcontext,
        "one empty program": lambda: bare((EMPTY, "sched_switch")),
        "one program that reads the clock": lambda: bare((CLOCK, "sched_switch")),
        "probetop, PMC": lambda: probetop("pmc"),
        "probetop, PMC with four more events": lambda: probetop(
            "pmc", options={"pmc": {"events": FOUR}}
        ),
        "probetop, all probes on at its start": lambda: probetop(*AT_START),
    }
    if has("perf"):
        out["perf stat -a, the same four events"] = lambda: perf_stat(FOUR)
    return out


def exec_variants(has: Callable[[str], object]) -> dict[str, Attach]:
    """What is compared for its cost to the start of a program."""
    out: dict[str, Attach] = {
        "nothing": nullcontext,
        "probetop, execs": lambda: probetop("execs"),
        "probetop, all probes on at its start": lambda: probetop(*AT_START),
    }
    if has("execsnoop"):
        out["execsnoop (libbpf-tools)"] = lambda: tool("execsnoop")
    return out
