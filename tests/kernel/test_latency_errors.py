# SPDX-License-Identifier: Apache-2.0
"""What cannot be traced says why in one sentence and how to mend it; other targets go on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from probes.bpf.plan import Params, Plan
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.latency.planner import fentry_works
from probes.latency.probe import LatencyProbe
from probes.latency.sample import Target
from tests.kernel.harness import Work
from tests.kernel.timing import Timing, since
from tests.paths import ROOT
from tests.unit.elf_file import FUNC, GLOBAL, ElfFile, Row

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]
HAS_KPROBES = Path("/sys/bus/event_source/devices/kprobe").exists()
FOREIGN = 183 if kernel.arch() == "x86_64" else 62


class BreaksOnInner(LatencyProbe):
    """Its source is no C for one target."""

    @staticmethod
    def plan(params: Params) -> Plan:
        plan = LatencyProbe.plan(params)
        broken = any(text.endswith(":inner") for text in params["targets"])
        return replace(plan, defines={**plan.defines, "record": 7}) if broken else plan


@pytest.fixture(scope="module")
def files(program: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that cannot be traced, and the program that can."""
    directory = tmp_path_factory.mktemp("files")
    found = {name: directory / name for name in ("stripped", "text", "script", "bits", "foreign")}
    found["good"] = program("functions")
    stripper = shutil.which("strip")
    if stripper is None:
        pytest.skip("strip is missing: install the package binutils")
    subprocess.run([stripper, "-o", found["stripped"], found["good"]], check=True)
    found["text"].write_text("no program\n")
    found["script"].write_text("#!/bin/sh\n")
    symbols: list[Row] = [("main", FUNC, GLOBAL, 0, 16)]
    found["bits"].write_bytes(ElfFile(symtab=symbols, bits=1, machine=3).build())
    found["foreign"].write_bytes(ElfFile(symtab=symbols, machine=FOREIGN).build())
    return found


BLOCK = "tracepoint:block:block_rq_issue,tracepoint:block:block_rq_complete"
CASES = [
    ("uprobe:{good}:recursoin", "has no function 'recursoin'", "did you mean recursion"),
    ("uprobe:{stripped}:recursion", "is stripped: it names no function", "debug symbols"),
    ("uprobe:{text}:main", "is not an ELF file", "a program or a library"),
    ("uprobe:{script}:main", "is a script, not an ELF file", "interpreter '/bin/sh'"),
    ("uprobe:{bits}:main", "is a 32-bit ELF file", "64-bit file"),
    ("uprobe:{foreign}:main", "is for .*, and this machine is", "runs here"),
    ("uprobe:/no/such/file:main", "there is no file", "check the path"),
    ("uprobe:no-such-program:main", "no program or library called", "give its path"),
    ("uprobe:/:main", "is no regular file", "a program or a library"),
    ("uprobe:{good}:*", "matches [0-9]{{3,}} functions .*, and 64 at once", "longer"),
    ("uprobe:{good}:zzz*", "matches no function", "shorter"),
    ("uprobe:libc:strlen", "only chooses the function", "trace what it chooses from"),
    ("usdt:{good}:some:probe", "has no static probes", "systemtap-sdt-dev"),
    ("tracepoint:sched:sched_swich", "no tracepoint", "did you mean .*sched:sched_switch"),
    ("tracepoint:nothing:here", "no tracepoint 'nothing:here'", "look for it with f"),
    (f"{BLOCK}@dev,sectr", "has no field 'sectr'", "did you mean sector"),
    (f"{BLOCK}@rwbs", "is text, and only numbers join a pair", "it has dev"),
    ("syscall:raed", "no system call 'raed'", "syscall:read"),
    ("kprobe:vfs_raed", "has no function 'vfs_raed'", "did you mean vfs_read"),
    ("fentry:vfs_raed", "has no function 'vfs_raed'", "did you mean vfs_read"),
]  # fmt: skip


@pytest.fixture(scope="module")
def live(files: dict[str, Path]) -> Iterator[Timing]:
    """One good target, and all of the others."""
    specs = [f"uprobe:{files['good']}:shared", *(case[0].format(**files) for case in CASES)]
    if not HAS_KPROBES:
        specs.append("kprobe:vfs_read")
    if not fentry_works():
        specs += ["fentry:vfs_read", "func:vfs_write"]
    with Timing(*specs) as source:
        yield source


def assert_one_sentence(target: Target) -> None:
    """Why and how to mend it, each a line, and nothing that a terminal would act on."""
    assert target.state == "failed"
    assert target.why
    for text in (target.why, target.fix or ""):
        assert text.isprintable()
        assert len(text) < 400
        assert "Traceback" not in text
        assert not re.search(r"Error\(|\bNone\b", text)
    assert target.fix


@pytest.mark.parametrize(("spec", "why", "fix"), CASES)
def test_one_sentence(live: Timing, files: dict[str, Path], spec: str, why: str, fix: str) -> None:
    target = live.now()[spec.format(**files)]
    assert_one_sentence(target)
    assert re.search(why.format(), target.why or ""), target.why
    assert re.search(fix, target.fix or ""), target.fix


@pytest.mark.skipif(HAS_KPROBES, reason="this kernel has kprobes")
def test_kprobes_that_are_not_there(live: Timing) -> None:
    target = live.now()["kprobe:vfs_read"]
    assert_one_sentence(target)
    assert "without kprobes" in (target.why or "")
    assert "tracepoint" in (target.fix or "")


@pytest.mark.skipif(fentry_works(), reason="this kernel lets fentry attach")
def test_fentry_that_is_refused(live: Timing) -> None:
    target = live.now()["fentry:vfs_read"]
    assert_one_sentence(target)
    assert "refuses fentry" in (target.why or "")
    # A bare function takes what is left, and says why that does not work either.
    bare = live.now()["func:vfs_write"]
    assert bare.state == ("on" if HAS_KPROBES else "failed")


def test_the_good_one_counts(live: Timing, files: dict[str, Path]) -> None:
    spec = f"uprobe:{files['good']}:shared"
    before = live.latency()
    with Work(files["good"], "shared", "1234") as work:
        work.work()
    after = live.latency()
    assert (since(before, after, spec)[0].n, after.state, after.lost) == (1234, "on", 0)


def test_what_is_no_target_is_refused_at_once(live: Timing) -> None:
    for text in ("", "nonsense", "kprobe:", "uprobe:x", "t:a:b@c,d", "syscall:re*d", "k:a\x1b[m"):
        with pytest.raises(ProbeError) as caught:
            live.source.set_option("latency", "add", text)
        assert caught.value.why.isprintable()
        assert caught.value.fix
    first = next(iter(live.now()))
    with pytest.raises(ProbeError, match="traced already"):
        live.source.set_option("latency", "add", first)
    with pytest.raises(ProbeError, match="not among the targets"):
        live.source.set_option("latency", "remove", "syscall:getpid")


def test_a_failed_one_can_be_removed_and_tried_again(files: dict[str, Path]) -> None:
    path = files["text"].parent / "late"
    spec = f"uprobe:{path}:shared"
    with Timing(spec) as live:
        assert live.now()[spec].state == "failed"
        live.remove(spec)
        shutil.copy(files["good"], path)
        live.add(spec)
        with Work(path, "shared", "10") as work:
            work.work()
        assert live.now()[spec].histogram.n == 10
    path.unlink()


def test_a_batch_that_does_not_load_leaves_the_running_ones(
    files: dict[str, Path],
) -> None:
    """The loader is killed in the midst of what was added; the others do not notice."""
    good, added = f"uprobe:{files['good']}:steady", f"uprobe:{files['good']}:empty"
    with Timing(good) as live, Work(files["good"], "until", "1000") as work:
        before = live.latency()
        work.go()
        killed = kill_loaders(live, lambda: live.source.set_option("latency", "add", added))
        assert killed
        (target,) = live.decided(added)
        assert_one_sentence(target)
        assert "SIGKILL" in (target.why or "")
        (made,) = work.work()
        after = live.latency()
        assert (after.state, since(before, after, good)[0].n) == ("on", made)
        # The next one is loaded as if nothing had been.
        live.remove(added)
        live.add(added)


def kill_loaders(live: Timing, action: Callable[[], None]) -> list[int]:
    """Do something, and kill the first loader that it starts."""
    children = Path(f"/proc/{live.broker}/task/{live.broker}/children")
    action()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = [int(word) for word in children.read_text().split()]
        if found:
            os.kill(found[0], 9)
            return found
    return []


def test_what_does_not_compile_leaves_the_running_ones(files: dict[str, Path]) -> None:
    good, added = f"uprobe:{files['good']}:steady", f"uprobe:{files['good']}:inner"
    paths = {"latency": "tests.kernel.test_latency_errors:BreaksOnInner"}
    with Timing(good, paths=paths) as live, Work(files["good"], "until", "1000") as work:
        before = live.latency()
        work.go()
        live.source.set_option("latency", "add", added)
        (target,) = live.decided(added)
        assert_one_sentence(target)
        assert "does not compile" in (target.why or "")
        (made,) = work.work()
        after = live.latency()
        assert (after.state, since(before, after, good)[0].n) == ("on", made)


def test_when_all_targets_fail_the_probe_goes_on(files: dict[str, Path]) -> None:
    """There is nothing to attach, but the pane has its rows, and targets can be added."""
    bad, good = f"uprobe:{files['text']}:main", f"uprobe:{files['good']}:shared"
    with Timing(bad) as live:
        assert live.latency().state == "on"
        assert [target.state for target in live.now().values()] == ["failed"]
        live.add(good)
        assert [target.state for target in live.now().values()] == ["failed", "on"]


def command(*arguments: str) -> tuple[int, str, str]:
    """`probetop stream ARGUMENTS`: its status, output and errors."""
    words = [sys.executable, "-m", "tui.cli", "stream", *arguments]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_stream_prints_targets(files: dict[str, Path]) -> None:
    good, bad = f"uprobe:{files['good']}:shared", f"uprobe:{files['text']}:main"
    chosen = ("-f", "runq", "-f", good, "-f", bad)
    status, out, err = command("--probes", "latency", *chosen, "-i", "0.5", "--seconds", "2")
    said = f"probetop: {bad}: '{files['text']}' is not an ELF file; name a program or a library\n"
    assert (status, err) == (0, said)
    objects = [json.loads(line) for line in out.splitlines()]
    assert len(objects) == 4
    for obj in objects:
        probe = obj["probes"]["latency"]
        assert (probe["state"], probe["lost"]) == ("on", 0)
        runq, idle, failed = probe["targets"]
        assert [t["spec"] for t in (runq, idle, failed)] == ["runq", good, bad]
        assert runq["count"] == sum(bucket[2] for bucket in runq["buckets"])
        assert (idle["mechanism"], idle["state"], idle["count"]) == ("uprobe", "on", 0)
        unknown = [idle[key] for key in ("p50", "p90", "p99", "p999", "max", "mean", "total")]
        assert unknown == [None] * 7
        assert 0 < idle["floor"] < 100_000
        assert (failed["state"], failed["count"]) == ("failed", None)
        assert failed["why"]
        assert failed["fix"]
    busy = next(o for o in objects if o["probes"]["latency"]["targets"][0]["count"])
    row = busy["probes"]["latency"]["targets"][0]
    assert 0 < row["p50"] <= row["p90"] <= row["p99"] <= row["p999"] <= row["max"]
    assert row["total"] == pytest.approx(row["mean"] * row["count"])
    assert all(low < high and n > 0 for low, high, n in row["buckets"])
    assert row["buckets"] == sorted(row["buckets"])


@pytest.mark.parametrize("spec", ["nonsense", "uprobe:x", "kprobe:vfs read", "t:a", "syscall:re*"])
def test_a_bad_target_is_one_line_and_status_2(spec: str) -> None:
    status, out, err = command("--probes", "latency", "-f", spec, "--seconds", "1")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("probetop: ")
