# SPDX-License-Identifier: Apache-2.0
"""The exec probe against programs whose names, arguments and ends are known."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from probes.core.frame import Filters
from probes.core.safe_text import readable
from probes.execs import probe as execs
from probes.execs.probe import ExecProbe
from probes.execs.process_log import ExecLog, ExecRow
from probes.execs.sample import ExecEvent, ExecSample, ExitEvent
from probes.report.stream import dumps, stream_object
from tests.kernel.harness import Live, Work

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with Live("execs") as source:
        yield source


def own(live: Live, since: int, *, parent: int | None = None) -> list[ExecEvent]:
    """Executions since the event of that number, of children of a process (this one)."""
    parent = os.getpid() if parent is None else parent
    events = live.events()[since:]
    return [e for e in events if isinstance(e, ExecEvent) and e.ppid == parent]


def run(*command: str | bytes | Path) -> int:
    """Run a program to its end without any search for it; its process id."""
    words = [os.fsencode(word) for word in command]
    pid = os.posix_spawn(words[0], words, {})
    os.waitpid(pid, 0)
    return pid


def test_numbered_executions_come_once_in_order_and_whole(live: Live, program: Program) -> None:
    tiny = str(program("tiny"))
    live.settled()
    live.settled()
    since = len(live.events())
    wanted = [("tiny", str(n), f"--name=value {n}", "") for n in range(300)]
    pids = []
    for args in wanted:
        pid = os.posix_spawn(tiny, list(args), {})
        os.waitpid(pid, 0)
        pids.append(pid)
    live.settled()
    found = own(live, since)
    assert [event.args for event in found] == wanted
    assert [event.pid for event in found] == pids
    assert {event.path for event in found} == {tiny}
    assert {event.comm for event in found} == {"tiny"}
    assert {event.parent for event in found} == {Path("/proc/self/comm").read_text().strip()}
    assert {(event.ret, event.truncated, event.uid) for event in found} == {(0, False, 0)}
    times = [event.time for event in found]
    assert times == sorted(times)
    assert abs(times[0] - time.time()) < 3600


def test_a_3_kB_argument_is_whole(live: Live, program: Program) -> None:
    tiny = str(program("tiny"))
    long = "".join(f"{n:04d}," for n in range(600))
    live.settled()
    since = len(live.events())
    run(tiny, long, "last")
    live.settled()
    (event,) = own(live, since)
    assert event.args == (tiny, long, "last")
    assert not event.truncated


@pytest.mark.parametrize(("size", "cut"), [(4096, False), (4097, True), (100_000, True)])
def test_long_argument_vectors_are_marked(
    live: Live, program: Program, size: int, cut: bool
) -> None:
    """`size` counts the zero behind each argument, as the kernel stores them."""
    tiny = str(program("tiny"))
    live.settled()
    since = len(live.events())
    rest = size - len(tiny) - 1
    words = [f"{n:06d}" * 10 for n in range(rest // 61)]
    words.append("x" * (rest - 61 * len(words) - 1))
    run(tiny, *words)
    live.settled()
    (event,) = own(live, since)
    whole = "\0".join([tiny, *words, ""])
    assert len(whole) == size
    assert event.args is not None
    assert event.truncated is cut
    text = "\0".join(event.args)
    if cut:
        assert text == whole[:4096].removesuffix("\0")
    else:
        assert event.args == (tiny, *words)


def test_failed_executions_have_errno_path_and_argv(
    live: Live, program: Program, tmp_path: Path
) -> None:
    plain = tmp_path / "not-executable"
    plain.write_text("#!/bin/sh\n")
    broken = tmp_path / "broken"
    broken.write_bytes(b"neither ELF nor script")
    broken.chmod(0o755)
    before, since = live.execs(), len(live.events())
    for path, error in (
        ("/nonexistent/deploy", FileNotFoundError),
        (str(plain), PermissionError),
        (str(broken), OSError),
    ):
        with pytest.raises(error):
            os.posix_spawn(path, [path, "--now", "really"], {})
    after = live.execs()
    found = own(live, since)
    assert [(event.ret, event.path, event.args) for event in found] == [
        (-2, "/nonexistent/deploy", ("/nonexistent/deploy", "--now", "really")),
        (-13, str(plain), (str(plain), "--now", "really")),
        (-8, str(broken), (str(broken), "--now", "really")),
    ]
    assert after.failed - before.failed >= 3
    outcomes = [row.outcome() for row in rows(live, since) if row.ppid == os.getpid()]
    assert outcomes == ["ENOENT", "EACCES", "ENOEXEC"]


def rows(live: Live, since: int) -> list[ExecRow]:
    log = ExecLog()
    log.add(live.events()[since:])
    return list(log.rows)


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("exit 0", "0"),
        ("exit 7", "7"),
        ("exit 255", "255"),
        ("kill -KILL $$", "SIGKILL"),
        ("kill -SEGV $$", "SIGSEGV"),
        ("kill -TERM $$", "SIGTERM"),
    ],
)
def test_the_end_is_joined(live: Live, script: str, outcome: str) -> None:
    live.settled()
    live.settled()
    since = len(live.events())
    started = time.monotonic()
    process = subprocess.Popen(["/bin/sh", "-c", f"sleep 0.15; {script}"])
    process.wait()
    lived = (time.monotonic() - started) * 1e9
    live.settled()
    (row,) = [row for row in rows(live, since) if row.pid == process.pid]
    assert row.outcome() == outcome
    assert row.args == ("/bin/sh", "-c", f"sleep 0.15; {script}")
    assert row.duration is not None
    assert 150e6 <= row.duration <= lived
    (nap,) = [row for row in rows(live, since) if row.ppid == process.pid]
    assert (nap.args, nap.parent, nap.outcome()) == (("sleep", "0.15"), "sh", "0")


def test_exec_of_exec_is_one_process_with_two_rows(live: Live) -> None:
    live.settled()
    since = len(live.events())
    pid = run("/bin/sh", "-c", "exec /bin/sh -c 'exit 3'")
    live.settled()
    first, second = (row for row in rows(live, since) if row.pid == pid)
    assert (first.replaced, first.outcome()) == (True, "exec")
    assert (second.args, second.outcome()) == (("/bin/sh", "-c", "exit 3"), "3")


def test_execution_from_another_thread_is_the_processs(live: Live, program: Program) -> None:
    tiny, thread_exec = str(program("tiny")), program("thread_exec")
    live.settled()
    since = len(live.events())
    with Work(thread_exec, tiny, "from", "thread") as work:
        work.go()
        assert work.process.wait(20) == 0
        work.end()
    live.settled()
    found = own(live, since)
    assert [event.pid for event in found] == [work.pid, work.pid]
    assert found[1].args == (tiny, "from", "thread")
    exits = [e for e in live.events()[since:] if isinstance(e, ExitEvent) and e.pid == work.pid]
    assert [(event.exit_code, event.signal) for event in exits] == [(0, 0)]


def test_failing_execution_from_another_thread(live: Live, program: Program) -> None:
    thread_exec = program("thread_exec")
    live.settled()
    since = len(live.events())
    with Work(thread_exec, "/nonexistent", "x", stderr=subprocess.DEVNULL) as work:
        work.go()
        assert work.process.wait(20) == 1
        work.end()
    live.settled()
    started, failed = own(live, since)
    assert started.ret == 0
    assert (failed.ret, failed.pid, failed.args) == (-2, work.pid, ("/nonexistent", "x"))
    (first, _) = (row for row in rows(live, since) if row.pid == work.pid)
    assert first.outcome() == "1"


HOSTILE = [
    b"\x1b]0;owned\x07\x1b[2J",
    b"[bold red]markup[/bold red]",
    b"\xff\xfe not utf-8 \x80",
    "‮gnp.exe".encode(),
    b"new\nline\ttab\r",
    b"'quotes\" $(and) `more`",
    b"",
]


def test_hostile_arguments_arrive_as_they_are(live: Live, program: Program) -> None:
    before = live.settled()
    tiny = program("tiny")
    live.settled()
    since = len(live.events())
    run(tiny, *HOSTILE)
    live.settled()
    (event,) = own(live, since)
    assert event.args is not None
    assert list(event.args) == [str(tiny), *map(readable, HOSTILE)]
    (frame,) = [
        frame
        for frame in live.frames
        if isinstance(sample := frame.samples["execs"], ExecSample) and event in sample.events
    ]
    line = dumps(stream_object(before, frame, {"execs": ExecProbe}))
    assert line.isascii()
    assert line.isprintable()
    objects = json.loads(line)["probes"]["execs"]["events"]
    (shown,) = [e for e in objects if e["type"] == "exec" and e["pid"] == event.pid]
    assert shown["args"][1] == HOSTILE[0].decode()
    assert shown["args"][3] == "\\xff\\xfe not utf-8 \\x80"
    assert shown["args"][4] == "‮gnp.exe"


def test_hostile_file_name(live: Live, program: Program, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\x1b[7m\xff"
    shutil.copy(os.fsencode(program("tiny")), name)
    live.settled()
    since = len(live.events())
    pid = run(name)
    live.settled()
    (event,) = own(live, since)
    assert event.pid == pid
    assert event.comm == "\x1b[7m\\xff"
    assert event.path == readable(name[:127])


STORM = Filters(comm="storm")
"""Takes in what the storm's workers start, and their own ends."""


def numbers(events: Sequence[ExecEvent | ExitEvent]) -> list[str]:
    """The numbers that the storm gave to the executions that are shown."""
    started = [event.args for event in events if isinstance(event, ExecEvent)]
    assert all(args is not None and args[0] == "storm" for args in started)
    return [args[1] for args in started if args is not None]


def accounted(live: Live, n: int, workers: int, before: ExecSample, since: int) -> int:
    """Checks that every event was shown, lost or dropped; how many were not shown."""
    after = live.execs()
    events = live.events()[since:]
    found = numbers(events)
    assert len(found) == len(set(found))
    assert set(found) <= {str(number) for number in range(n)}
    assert (after.execs - before.execs, after.failed - before.failed) == (n, 0)
    # A worker, which executed nothing, is counted when it ends and makes no event.
    assert after.exits - before.exits == n + workers
    dropped = sum(sample.dropped for sample in live.exec_samples())
    unseen = after.lost - before.lost + dropped
    assert len(events) + unseen == 2 * n
    assert unseen or set(found) == {str(number) for number in range(n)}
    return unseen


def test_storm_of_20000_is_shown_or_counted(program: Program) -> None:
    n, workers = 20_000, os.cpu_count() or 1
    with (
        Work(program("storm"), str(n), str(workers), program("tiny")) as storm,
        Live("execs", interval=0.5, filters=STORM) as live,
    ):
        before, since = live.execs(), len(live.events())
        storm.work()
        accounted(live, n, workers, before, since)


def test_events_too_many_for_a_sample_are_dropped_and_counted(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 3000
    monkeypatch.setattr(execs, "MAX_EVENTS", 100)
    with (
        Work(program("storm"), str(n), "1", program("tiny")) as storm,
        Live("execs", interval=0.3, filters=STORM) as live,
    ):
        before, since = live.execs(), len(live.events())
        storm.work()
        unseen = accounted(live, n, 1, before, since)
        assert all(len(sample.events) <= 100 for sample in live.exec_samples())
        # The newest are kept.
        assert str(n - 1) in numbers(live.events()[since:])
    assert unseen > 0


def test_reader_that_stands_still_loses_and_says_how_many(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny ring buffer that nobody empties: what does not fit is counted, exactly."""
    n = 2000
    monkeypatch.setattr(execs, "RING_PAGES", 4)
    with (
        Work(program("storm"), str(n), "2", program("tiny")) as storm,
        Live("execs", filters=STORM) as live,
    ):
        before, since = live.execs(), len(live.events())
        probe = live.probes["execs"]
        drain = probe.drain
        monkeypatch.setattr(probe, "drain", lambda: None)
        storm.work()
        stuck = live.execs()
        assert len(live.events()) == since
        assert stuck.lost > before.lost
        monkeypatch.setattr(probe, "drain", drain)
        unseen = accounted(live, n, 2, before, since)
    assert 0 < unseen < 2 * n


def test_counters_and_events_agree_at_leisure(live: Live) -> None:
    before, since = live.execs(), len(live.events())
    for _ in range(25):
        run("/bin/true")
    after = live.execs()
    events = live.events()[since:]
    assert after.lost == before.lost
    assert sum(isinstance(e, ExecEvent) and e.ret == 0 for e in events) == (
        after.execs - before.execs
    )
    assert sum(isinstance(e, ExecEvent) and e.ret < 0 for e in events) == (
        after.failed - before.failed
    )


def test_killed_from_outside(live: Live) -> None:
    live.settled()
    since = len(live.events())
    process = subprocess.Popen(["/bin/sleep", "1000"])
    live.wait(
        "it was executed",
        lambda _: any(event.pid == process.pid for event in live.events()[since:]),
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    live.settled()
    (row,) = [row for row in rows(live, since) if row.pid == process.pid]
    assert (row.signal, row.exit_code, row.outcome()) == (9, 0, "SIGKILL")
