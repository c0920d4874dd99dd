# SPDX-License-Identifier: Apache-2.0
"""What is attached in user space: the file that was read, by the rights of who asked, alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from probes.bpf import bpf_syscall, btf
from probes.bpf.attach import Attacher, batches
from probes.broker import server as broker
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.host.file_access import for_clients
from probes.latency.planner import wish
from probes.source import Found
from probes.symbols.functions import functions
from tests.kernel.harness import (
    Live,
    children_of,
    eventually,
    left_in_kernel,
    program_ids,
    programs_of,
)
from tests.kernel.timing import PATHS, Timing
from tests.paths import ROOT

pytestmark = [pytest.mark.kernel, pytest.mark.concurrent]

SOURCE = """
#include <unistd.h>
%s
__attribute__((noinline)) int wanted(int x) { return x * 3 + 1; }
int main(int argc, char **argv) { write(1, "ready\\n", 6); pause(); return wanted(argc); }
"""
BREAKPOINT = b"\xcc"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A directory that everybody may search."""
    path = Path("/tmp") / f"probetop-uprobes-{os.getpid()}"
    path.mkdir(mode=0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture(scope="module")
def programs(folder: Path) -> tuple[Path, Path]:
    """Two programs whose function `wanted` is at different places."""
    made = []
    for name, more in (("mine", ""), ("theirs", "int more(int x) { return x / 7 + x % 5; }")):
        source = folder / f"{name}.c"
        padding = "".join(f"int pad{n}(int x) {{ return x / {n + 3}; }}\n" for n in range(40))
        source.write_text(SOURCE % (more and padding))
        subprocess.run(["cc", "-O1", "-no-pie", "-o", folder / name, source], check=True)
        made.append(folder / name)
    first, second = (functions(str(path))["wanted"].offset for path in made)
    assert first != second
    return made[0], made[1]


class Running:
    """A program that runs, and its code as it is in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.process = subprocess.Popen([path], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def code(self) -> bytes:
        """The bytes of the segment that is run."""
        for line in Path(f"/proc/{self.process.pid}/maps").read_text().splitlines():
            if "r-xp" in line and line.endswith(str(self.path)):
                start, end = (int(word, 16) for word in line.split()[0].split("-"))
                with open(f"/proc/{self.process.pid}/mem", "rb", buffering=0) as memory:
                    memory.seek(start)
                    return memory.read(end - start)
        raise AssertionError(f"{self.path} is not mapped")


def flip(link: Path, to: Path) -> None:
    link.with_suffix(".new").symlink_to(to)
    os.replace(link.with_suffix(".new"), link)


def attach_all(text: str, between: Callable[[], object]) -> list[int]:
    """Attach to a target, with something that happens after its files were read."""
    made = wish(text, 0)
    between()
    multi = btf.KernelBTF().enumerator("bpf_attach_type", "BPF_TRACE_UPROBE_MULTI") is not None
    attacher = Attacher(lambda name: bpf_syscall.RETURN_0, lambda name: None, multi)
    links = []
    for batch in batches(one for one in made.attach if one.path):
        links += attacher.attach_batch(batch)
    attacher.forget()
    return links


def changed(before: bytes, after: bytes) -> list[int]:
    return [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]


@pytest.mark.skipif(kernel.arch() != "x86_64", reason="looks for x86_64's breakpoint")
@pytest.mark.parametrize("multi", [True, False])
def test_a_link_that_turns_attaches_to_the_file_that_was_read(
    folder: Path, programs: tuple[Path, Path], multi: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = programs
    link = folder / "link"
    flip(link, mine)
    if not multi:
        monkeypatch.setattr(bpf_syscall, "uprobe_multi_link", lambda *_: 1 / 0)
        monkeypatch.setattr(btf.KernelBTF, "enumerator", lambda *_: None)
    with Running(mine) as one, Running(theirs) as other:
        before = one.code(), other.code()
        links = attach_all(f"uprobe:{link}:wanted", lambda: flip(link, theirs))
        try:
            place = changed(before[0], one.code())
            assert len(place) == 1
            assert one.code()[place[0] : place[0] + 1] == BREAKPOINT
            assert changed(before[1], other.code()) == []
        finally:
            for fd in links:
                os.close(fd)
        assert (one.code(), other.code()) == before


class Stream:
    """`probetop stream` that times a function, in a process group of its own."""

    def __init__(self, spec: str, *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tui.cli", "stream", "--probes", "latency", "-f", spec, *more],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.group():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def group(self) -> list[int]:
        """The processes of its group that run."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(") ")[2].split()
                if int(fields[2]) == self.process.pid and fields[0] not in "ZX":
                    found.append(int(name))
        return found

    def broker(self) -> int:
        """The process that holds what is attached; 0 while the loader has not handed it over."""
        return next((pid for pid in children_of(self.process.pid) if programs_of(pid)), 0)


@pytest.mark.skipif(kernel.arch() != "x86_64", reason="looks for x86_64's breakpoint")
@pytest.mark.parametrize("way", ["SIGKILL", "SIGTERM", "SIGINT", "reader", "broker", "by itself"])
def test_when_its_processes_are_gone_so_are_its_breakpoints(
    programs: tuple[Path, Path], way: str
) -> None:
    """However it ends, and although a child of the broker closes what the broker held."""
    before = program_ids()
    more = ("--seconds", "3") if way == "by itself" else ()
    with (
        Running(programs[0]) as traced,
        Stream(f"uprobe:{programs[0]}:wanted", *more) as stream,
    ):
        whole = traced.code()
        eventually("there is a breakpoint", lambda: changed(whole, traced.code()))
        if way.startswith("SIG"):
            stream.process.send_signal(getattr(signal, way))
        elif way == "reader":
            assert stream.process.stdout is not None
            stream.process.stdout.close()
        elif way == "broker":
            os.kill(eventually("there is a broker", stream.broker), signal.SIGKILL)
        eventually("its processes are gone", lambda: stream.process.poll() is not None)
        eventually("and those of its group", lambda: not stream.group())
        assert traced.code() == whole
        eventually("its programs are gone", lambda: not left_in_kernel(before))


@pytest.mark.skipif(kernel.arch() != "x86_64", reason="looks for x86_64's breakpoint")
def test_a_link_that_never_stops_turning_hits_function_starts_only(
    folder: Path, programs: tuple[Path, Path]
) -> None:
    link = folder / "turning"
    flip(link, programs[0])
    stop = threading.Event()

    def turn() -> None:
        while not stop.is_set():
            flip(link, programs[1])
            flip(link, programs[0])

    starts = {path: functions(str(path))["wanted"].offset for path in programs}
    thread = threading.Thread(target=turn)
    with Running(programs[0]) as one, Running(programs[1]) as other:
        clean = one.code(), other.code()
        thread.start()
        try:
            for _ in range(20):
                links = attach_all(f"uprobe:{link}:wanted", lambda: None)
                for running, before in zip((one, other), clean, strict=True):
                    places = changed(before, running.code())
                    assert {0x1000 + at for at in places} <= {starts[running.path]}
                for fd in links:
                    os.close(fd)
        finally:
            stop.set()
            thread.join()


def test_a_program_that_was_written_to_meanwhile_is_not_attached_to(
    folder: Path, programs: tuple[Path, Path]
) -> None:
    path = folder / "rewritten"
    shutil.copy(programs[0], path)
    with pytest.raises(ProbeError, match="was changed while it was read"):
        attach_all(f"uprobe:{path}:wanted", lambda: shutil.copy(programs[1], path))


def test_bad_targets_fail_alone(tmp_path: Path, programs: tuple[Path, Path]) -> None:
    os.mkfifo(tmp_path / "fifo")
    bad = [
        f"uprobe:{path}:x" for path in ("/proc/self/mem", "/dev/zero", tmp_path / "fifo", tmp_path)
    ]
    bad += [f"uprobe:/{'a' * 5000}:x", f"uprobe:{programs[0]}:wanted+0x1", "usdt:/proc/kcore:p:n"]
    good = [f"uprobe:{programs[0]}:wanted", "runq"]
    with Timing(*good, *bad) as live:
        live.decided(*good, *bad)
        found = {spec: target.state for spec, target in live.now().items()}
        assert {spec for spec, state in found.items() if state == "on"} == set(good)
        assert {spec for spec, state in found.items() if state == "failed"} == set(bad)


def ask(live: Live, query: str) -> list[Found]:
    answers: list[list[Found]] = []
    live.source.search(query, lambda found: answers.append(list(found)))
    return eventually(f"{query} is answered", lambda: answers)[0]


def test_clients_of_an_agent_reach_what_everybody_can_read(
    folder: Path, programs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(programs[0], private / "tool")
    (private / "script").write_text("#!/opt/secret/interpreter\n")
    monkeypatch.setattr(broker, "fork", partial(broker.fork, asker=for_clients()))
    hidden = [f"uprobe:{private}/{name}:wanted" for name in ("tool", "script", "missing")]
    with Timing("runq", paths=PATHS) as live:
        assert ask(live, f"{private}/") == []
        assert ask(live, "/root/") == []
        assert [entry.spec for entry in ask(live, f"{programs[0]}:wanted")] == [
            f"uprobe:{programs[0]}:wanted"
        ]
        live.add(f"uprobe:{programs[0]}:wanted")
        for spec in hidden:
            live.source.set_option("latency", "add", spec)
        targets = live.decided(*hidden)
        assert {target.state for target in targets} == {"failed"}
        whys = {(t.why or "").replace(t.spec.split(":")[1], "PATH") for t in targets}
        assert whys == {"'PATH' cannot be read as user nobody, and no process executes it"}
        live.remove(hidden[0])
        with Running(private / "tool"):
            live.add(hidden[0])
            assert ask(live, f"{private}/tool:wanted")
        inside = f"uprobe:{programs[0]}:wanted+0x3"
        live.source.set_option("latency", "add", inside)
        (target,) = live.decided(inside)
        assert "may not be traced here" in (target.why or "")
