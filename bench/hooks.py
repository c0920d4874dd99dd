# SPDX-License-Identifier: Apache-2.0
"""What is attached while something is timed: bare programs, probetop's probes, other tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench.commit import HERE_NOW, Side
from bench.held import programs
from bench.measure import BenchError
from probes.bpf import bpf_syscall, btf
from probes.bpf.attach import Attacher
from probes.bpf.plan import Attach as Place
from tui.registry import REGISTRY

START_SECONDS = 20.0
KTIME_GET_NS = 5
"""Number of the helper bpf_ktime_get_ns."""
AT_START = tuple(entry.name for entry in REGISTRY if entry.on_at_start)
EMPTY = bpf_syscall.RETURN_0
CLOCK = bpf_syscall.insn(bpf_syscall.CALL, imm=KTIME_GET_NS) + bpf_syscall.RETURN_0

Attach = Callable[[], AbstractContextManager[object]]


@contextmanager
def bare(*programs: tuple[bytes, str]) -> Iterator[None]:
    """Raw tracepoint programs, each as instructions and the tracepoint's name."""
    fds: list[int] = []
    try:
        for code, name in programs:
            fds.append(bpf_syscall.prog_load(bpf_syscall.PROG_RAW_TRACEPOINT, code))
            fds.append(bpf_syscall.raw_tracepoint_open(fds[-1], name))
        yield
    finally:
        for fd in reversed(fds):
            os.close(fd)


@contextmanager
def empty_uprobes(path: Path, offset: int, returns: bool) -> Iterator[None]:
    """An empty program at a place of a file, and with `returns` one at the function's end.

    They are attached as probetop attaches its own, so that the kernel's part is the same.
    """
    multi = btf.KernelBTF().enumerator("bpf_attach_type", "BPF_TRACE_UPROBE_MULTI") is not None
    attacher = Attacher(lambda name: EMPTY, lambda name: None, multi)
    places = [Place(kind="uprobe", function="f", path=str(path), offset=offset)]
    if returns:
        places.append(Place(kind="uretprobe", function="f", path=str(path), offset=offset))
    links: list[int] = []
    try:
        links.extend(attacher.attach(place) for place in places)
        yield
    finally:
        for fd in links:
            os.close(fd)
        attacher.forget()


@contextmanager
def probetop(
    *on: str, options: Mapping[str, Mapping[str, object]] | None = None, always: bool = False
) -> Iterator[None]:
    """The project's own probes, polled once a second; raises BenchError if they do not run."""
    wish = {"on": on, "options": options or {}, "always": always}
    with attached_by(HERE_NOW, wish):
        yield


@contextmanager
def attached_by(side: Side, wish: Mapping[str, object]) -> Iterator[None]:
    """The same, of any tree; `wish` is that of its bench.attached."""
    with subprocess.Popen(
        [side.python, "-P", "-m", "bench.attached", json.dumps(wish)],
        cwd=side.root,
        env=side.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        if said != "on":
            process.kill()
            raise BenchError(said or "ended before its probes were on")
        yield
        process.stdin.close()


@contextmanager
def tool(*command: str, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Another program that attaches BPF programs, from when it has done so until its end.

    Raises BenchError, with what the program said, if it attaches nothing.
    """
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, **(environment or {})},
        ) as process,
    ):
        try:
            end = time.monotonic() + START_SECONDS
            while not programs(process.pid):
                if process.poll() is not None or time.monotonic() > end:
                    said.seek(0)
                    raise BenchError(complaint(said.read().decode(errors="replace")))
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
                raise BenchError("it ended at once")
            yield
        finally:
            process.terminate()


def complaint(text: str) -> str:
    """The line of a program's messages that tells why it failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]
    chosen = (errors or lines[-1:] or ["it attached nothing and said nothing"])[0]
    return re.sub(r"^\S+:\d+:\d+: (?:fatal )?error: ", "", chosen)[:120]
