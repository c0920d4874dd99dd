# SPDX-License-Identifier: Apache-2.0
"""Timing by turns, and the C programs that time.

Variants take turns, round after round, and the fastest round of each counts: the machine's
other work, its frequency and its heat change over minutes, and all of them only ever add.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from probes.bpf import bpf_syscall

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ALONE_SECONDS, PATIENCE = 6.0, 3
"""How long to wait for others to end tracing, and how often in vain before waiting no more."""
GET_NEXT_ID, GET_FD_BY_ID = 11, 13
"""Commands of bpf(2): the next program's id, a descriptor of a program."""
TRACING = frozenset({2, 5, 7, 17, 26})
"""Program types: kprobe, tracepoint, perf event, raw tracepoint, tracing."""


class BenchError(Exception):
    """Something could not be measured."""


class Variant(NamedTuple):
    """One thing that may be attached, in words: its name and what it counts.

    What it adds is compared with what the variant named `beside` adds ("": with none).
    """

    name: str
    counts: str
    attach: Callable[[], AbstractContextManager[object]]
    beside: str = ""


class Turns(NamedTuple):
    """What was measured, by variant, and how often somebody else's programs were attached.

    `left_out` has the variants that could not be attached, with the reason.
    """

    values: dict[str, list[float]]
    disturbed: int
    left_out: dict[str, str]


def compiled(folder: Path, *names: str) -> dict[str, Path]:
    """The C programs of this folder, as static executables in `folder`; raises BenchError."""
    if shutil.which("gcc") is None:
        raise BenchError("gcc is missing: apt-get install gcc libc6-dev")
    out: dict[str, Path] = {}
    for name in names:
        out[name] = folder / name
        source = str(HERE / f"{name}.c")
        subprocess.run(["gcc", "-O2", "-static", "-o", str(out[name]), source], check=True)
    return out


def compiled_as_cxx(folder: Path, name: str) -> Path:
    """A C program of this folder as one of C++, which exceptions may leave; raises BenchError."""
    if shutil.which("g++") is None:
        raise BenchError("g++ is missing: apt-get install g++")
    out = folder / f"{name}-cxx"
    flags = ["-O2", "-x", "c++", "-U_GNU_SOURCE", "-Wl,--no-as-needed"]
    command = ["g++", *flags, "-o", str(out), str(HERE / f"{name}.c")]
    subprocess.run(command, check=True)
    return out


def timed(*command: object) -> float:
    """The number that a program prints."""
    words = [str(word) for word in command]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


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
            if int(bpf_syscall.fdinfo(fd)["prog_type"]) in TRACING:
                found.add(at)
            os.close(fd)


def _bpf(command: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    return bpf_syscall._syscall(0, ctypes.c_long(command), attr, ctypes.c_ulong(len(attr)))


def wait_until_alone(seconds: float) -> bool:
    """Wait a while until nobody traces; False if somebody still does."""
    end = time.monotonic() + seconds
    while tracing_programs():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def take_turns(
    variants: Sequence[Variant],
    measure: Callable[[], float],
    rounds: int,
    say: Callable[[str], None],
) -> Turns:
    """Measures with each variant attached, once a round, with nobody else tracing if possible.

    A variant that cannot be attached once is left out from then on, with all its values.
    """
    turns = Turns({variant.name: [] for variant in variants}, 0, {})
    disturbed, patience = 0, PATIENCE
    for number in range(rounds):
        say(f"  round {number + 1} of {rounds}")
        for variant in variants:
            if variant.name in turns.left_out:
                continue
            alone = wait_until_alone(ALONE_SECONDS if patience else 0.5)
            patience = max(0, patience - (not alone))
            try:
                with variant.attach():
                    ours = tracing_programs() if alone else set()
                    turns.values[variant.name].append(measure())
                    alone = alone and tracing_programs() == ours
            except BenchError as error:
                say(f"  left out: {variant.name}: {error}")
                turns.left_out[variant.name] = str(error)
                del turns.values[variant.name]
                continue
            disturbed += not alone
    return turns._replace(disturbed=disturbed)
