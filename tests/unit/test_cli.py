# SPDX-License-Identifier: Apache-2.0
"""The command line: what it takes, what it refuses and how, without any privileges."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

import probes
from probes import kernel
from probes.base import ProbeError
from probes.recording import Reader
from probes.replay import ReplaySource
from probes.samples import Frame, LatencySample, Notice, State, Target
from tests.unit.test_recording import make_frames, write
from tui import cli, headless
from tui.checks import UsageError
from tui.registry import names
from tui.snapshot import snapshot

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def run(
    *arguments: str, stdin: int = subprocess.DEVNULL, **more: Any
) -> subprocess.CompletedProcess[str]:
    """`probetop ARGUMENTS` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tui.cli", *arguments],
        cwd=ROOT,
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which these arguments are refused."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("probetop: ")
    assert err[:-1].isprintable()
    assert "; " in err
    return err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["-i", "0"], "'0': out of range; choose an interval between 0.05 and 3600 seconds"),
        (["-i", "1e9"], "out of range"),
        (["-i", "nan"], "out of range"),
        (["--interval", "soon"], "-i/--interval 'soon': not a number"),
        (["-i"], "expected one argument"),
        (["-p", "4194305"], "-p/--pid '4194305': no such process"),
        (["-p", "0"], "not a process id"),
        (["-p", "-1"], "not a process id"),
        (["-p", "1" * 5000], "not a process id"),
        (["-p", "\u0661"], "not a process id"),
        (["-c", "a" * 16], "the kernel keeps only 15 bytes of a name; give 'aaaaaaaaaaaaaaa'"),
        (["-c", ""], "not a process name"),
        (["-u", "no-such-user"], "-u/--user 'no-such-user': no such user"),
        (["-u", "4294967295"], "no such user"),
        (["--cgroup", "/no/such"], "--cgroup '/no/such': "),
        (["--cgroup", "../../../../etc"], "--cgroup '../../../../etc': "),
        (["--cgroup", "\udcff"], "--cgroup"),
        (["--probes", "syscals"], "unknown probe 'syscals'; did you mean syscalls?"),
        (["--probes", "syscalls,,execs"], "unknown probe ''"),
        (["--probes", "zzz"], "choose from syscalls, execs"),
        (["--cost", "never"], "--cost 'never': unknown; choose from always, sampled"),
        (["--budget", "some"], "--budget 'some': not a number; give per cent of all CPUs"),
        (["--budget", "nan"], "--budget 'nan': out of range; choose between 0.1 and 100"),
        (["--budget", "-1"], "--budget '-1': out of range; choose between 0.1 and 100"),
        (["--budget", "0.01"], "--budget '0.01': out of range; choose between 0.1 and 100"),
        (["--sample", "0"], "--sample '0': not a number of calls; choose between 1 and 65536"),
        (["--sample", "1e3"], "--sample '1e3': not a number of calls"),
        (["--run-as", "no-such-user"], "--run-as 'no-such-user': no such user"),
        (["--log", ""], "--log '': not a file name"),
        (["--config", "/no/such"], "/no/such: no such file"),
        (["--unknown"], "unrecognized arguments: --unknown; see `probetop --help`"),
        (["strem"], "unknown command 'strem'; did you mean stream?"),
        (["\x1b[2J"], "unknown command"),
        (["stream", "--seconds", "0"], "--seconds '0': out of range"),
        (["stream", "--seconds", "x"], "--seconds 'x': not a number"),
        (["stream", "-i", "5", "--seconds", "1"], "shorter than the interval of 5"),
        (["record"], "arguments are required: OUT; see `probetop record --help`"),
        (["record", "/etc/passwd"], "/etc/passwd: it exists already; choose another name"),
        (["replay"], "arguments are required: FILE"),
        (["replay", "/etc/passwd"], "/etc/passwd is not a probetop recording"),
        (["replay", "/no/such"], "cannot read /no/such: No such file or directory"),
        (["-p", "1", "demo"], "--pid: does nothing with this command"),
        (["--latency", "doctor"], "--latency: does nothing with this command"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    assert why in refused(capsys, *arguments)


def test_a_thread_is_not_a_process(capsys: pytest.CaptureFixture[str]) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        err = refused(capsys, "-p", str(thread.native_id))
    finally:
        done.set()
        thread.join()
    assert f"a thread, not a process; give its process, {os.getpid()}" in err


def test_cgroups_are_found_below_the_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tui.checks import check_cgroup

    for name in ("", "a", "a/b"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "cgroup.procs").touch()
    (tmp_path / "file").mkdir()
    (tmp_path / "out").symlink_to("/")
    monkeypatch.setattr(kernel, "cgroup2", lambda: tmp_path)
    for given in ("/a/b", "a/b", f"{tmp_path}/a/b", "/a/../a/b/"):
        assert check_cgroup(given) == "/a/b"
    assert check_cgroup("/") == "/"
    assert check_cgroup(str(tmp_path)) == "/"
    for given in ("/file", "/out", "/a/c", "..", "\0"):
        with pytest.raises(ProbeError, match="not a cgroup"):
            check_cgroup(given)
    monkeypatch.setattr(kernel, "cgroup2", lambda: None)
    assert "no cgroup2 hierarchy is mounted" in refused(capsys, "--cgroup", "/a")


def test_help_and_errors_import_neither_textual_nor_bcc() -> None:
    program = (
        "import sys\nfrom tui import cli\n"
        "try: status = cli.main(sys.argv[1:])\n"
        "except SystemExit as end: status = end.code\n"
        "loaded = {m.partition('.')[0] for m in sys.modules}\n"
        "print(status, sorted(loaded & {'textual', 'rich', 'bcc', 'psutil'}), file=sys.stderr)"
    )
    for argument, status in (("--help", 0), ("--version", 0), ("--oops", 2), ("demo", 2)):
        done = subprocess.run(
            [sys.executable, "-c", program, argument],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr.splitlines()[-1] == f"{status} []"


def test_help_lists_what_works(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for word in (*cli.COMMANDS, "--interval", "--cgroup", "--probes", "--config", "--version"):
        assert word in out
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"probetop {probes.__version__}\n"


def test_a_dashboard_needs_a_terminal(tmp_path: Path) -> None:
    path = write(tmp_path / "a", make_frames(1))
    line = "probetop: standard input: not a terminal; "
    for arguments in ((), ("replay", str(path))):
        done = run(*arguments)
        fix = "run it in a terminal" if arguments else "use `probetop stream` for scripts"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{line}{fix}\n")
    master, slave = pty.openpty()
    try:
        done = run("replay", str(path), stdin=slave)
    finally:
        os.close(master)
        os.close(slave)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "probetop: standard output: not a terminal; run it in a terminal\n"


@pytest.mark.parametrize("command", [["stream"], ["record", "/tmp/never-made"]])
def test_without_privileges_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    monkeypatch.setattr(kernel, "may_load", lambda: False)
    assert cli.main(command) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "loading BPF programs needs root (CAP_BPF and CAP_PERFMON)" in err
    assert "probetop demo" in err


class Output(io.StringIO):
    """Standard output that breaks after so many lines, as a pipe does."""

    def __init__(self, lines: int, error: type[OSError], target: int) -> None:
        super().__init__()
        self.lines, self.error, self.target = lines, error, target

    def flush(self) -> None:
        if self.getvalue().count("\n") >= self.lines:
            raise self.error(28, "No space left on device")

    def fileno(self) -> int:
        return self.target


def source_of(path: Path, frames: list[Frame], *, loop: bool = False) -> ReplaySource:
    source = ReplaySource(write(path, frames), loop=loop)
    source.set_interval(0.02)
    return source


def started(count: int) -> list[Frame]:
    """Frames of which the first shows probes that are still starting."""
    first, *rest = make_frames(count)
    samples = {name: replace(s, state="starting") for name, s in first.samples.items()}
    return [replace(first, samples=samples), *rest]


def test_stream_prints_full_intervals_only(tmp_path: Path) -> None:
    out, complaints = io.StringIO(), list[str]()
    source = source_of(tmp_path / "a", started(9))
    assert headless.stream(source, out, 3, complaints.append) == 0
    objects = [json.loads(line) for line in out.getvalue().splitlines()]
    # Frame 0 was starting, frame 1 is where counting begins.
    assert [obj["time"] for obj in objects] == [1.7e9 + 2, 1.7e9 + 3, 1.7e9 + 4]
    assert [obj["probes"]["syscalls"]["rows"][0]["count"] for obj in objects] == [99, 99, 99]
    assert [len(obj["probes"]["execs"]["events"]) for obj in objects] == [1, 1, 1]
    assert complaints == []


def test_stream_tells_why_it_ended(tmp_path: Path) -> None:
    out, complaints = io.StringIO(), list[str]()
    source = source_of(tmp_path / "a", make_frames(3))
    assert headless.stream(source, out, None, complaints.append) == 1
    assert out.getvalue().count("\n") == 2
    assert complaints == ["The recording ends after 3 frames."]


def test_stream_tells_of_a_failed_probe_once(tmp_path: Path) -> None:
    frames = [
        replace(
            frame,
            samples={
                **frame.samples,
                "execs": replace(
                    frame.samples["execs"], state="failed", why="no BTF", fix="get it"
                ),
            },
        )
        for frame in make_frames(4)
    ]
    out, complaints = io.StringIO(), list[str]()
    headless.stream(source_of(tmp_path / "a", frames), out, 2, complaints.append)
    assert complaints == ["execs: no BTF; get it"]
    failed = json.loads(out.getvalue().splitlines()[0])["probes"]["execs"]
    assert (failed["state"], failed["why"], failed["fix"]) == ("failed", "no BTF", "get it")


def latencies(frame: Frame, **states: str) -> Frame:
    """The Frame with nothing but targets, in these states."""
    why = {"failed": ("no function of that name", "see probetop -f ?")}
    targets = {
        f"uprobe:/bin/x:{name}": Target(
            spec=f"uprobe:/bin/x:{name}", state=cast(State, state), why=words[0], fix=words[1]
        )
        for name, state in states.items()
        for words in (why.get(state, (None, None)),)
    }
    return replace(frame, samples={"latency": LatencySample(state="on", targets=targets)})


FAILED = "uprobe:/bin/x:nosuch: no function of that name; see probetop -f ?"


@pytest.mark.parametrize(
    ("first", "then", "status", "told"),
    [
        ({"nosuch": "starting"}, {"nosuch": "failed"}, 1, [FAILED]),
        ({"nosuch": "failed", "a": "starting"}, {"nosuch": "failed", "a": "on"}, 0, [FAILED]),
        ({"a": "starting"}, {"a": "on"}, 0, []),
        ({}, {}, 0, []),
    ],
)
def test_a_failed_target_is_told_and_is_in_the_status(
    tmp_path: Path, first: dict[str, str], then: dict[str, str], status: int, told: list[str]
) -> None:
    frames = make_frames(6)
    frames = [latencies(frames[0], **first), *[latencies(f, **then) for f in frames[1:]]]
    out, complaints = io.StringIO(), list[str]()
    source = source_of(tmp_path / "a", frames)
    assert headless.stream(source, out, 2, complaints.append) == status
    assert complaints == told
    # The first interval begins when no target is starting any more.
    begun = 2 if first else 1
    times = [json.loads(line)["time"] for line in out.getvalue().splitlines()]
    assert times == [1.7e9 + begun, 1.7e9 + begun + 1]
    complaints.clear()
    source = source_of(tmp_path / "b", frames)
    assert headless.record(source, str(tmp_path / "c"), 2, complaints.append) == status
    assert complaints[:-1] == told
    complaints.clear()
    source = source_of(tmp_path / "d", frames)
    assert snapshot(source, str(tmp_path / "e.json"), 2, complaints.append) == status
    assert complaints[:-1] == told


def test_a_cgroup_of_v1_is_that_of_the_same_path_or_says_which_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probes import cgroups
    from tui.checks import check_cgroup

    v1, v2 = tmp_path / "systemd", tmp_path / "unified"
    for path, pid in ((v1 / "both", ""), (v2 / "both", ""), (v1 / "old", "811")):
        path.mkdir(parents=True)
        (path / "cgroup.procs").write_text(pid)
    mounts = {"cgroup": [str(v1)], "cgroup2": [str(v2)]}
    monkeypatch.setattr(kernel, "mount_points", mounts.__getitem__)
    assert check_cgroup(str(v1 / "both")) == check_cgroup("/both") == "/both"
    where = {811: {"": "/new/home", "name=systemd": "/old"}}
    monkeypatch.setattr(cgroups, "_memberships", lambda pid: where.get(pid, {}))
    for given in ("/old", "old", str(v1 / "old")):
        with pytest.raises(ProbeError, match="a cgroup of v1 only") as raised:
            check_cgroup(given)
        assert "give /new/home" in raised.value.fix
    where[811][""] = "/"
    with pytest.raises(ProbeError) as raised:
        check_cgroup("/old")
    assert "in the root of cgroup2" in raised.value.fix


def test_what_became_of_a_filter_is_told_once(tmp_path: Path) -> None:
    removed = Notice("cgroup_removed", 1.7e9, cgroup="/a\x1b[2J.service")
    back = removed._replace(kind="cgroup_followed", time=1.7e9 + 1)
    frames = make_frames(6)
    frames[2:4] = [replace(frame, notices=(removed,)) for frame in frames[2:4]]
    frames[4:] = [replace(frame, notices=(back,)) for frame in frames[4:]]
    complaints: list[str] = []
    headless.stream(source_of(tmp_path / "a", frames), io.StringIO(), 4, complaints.append)
    first, second = complaints
    assert re.fullmatch(
        r"cgroup \S+ was removed \d\d:\d\d:\d\d: nothing is counted until it is made again", first
    )
    assert re.fullmatch(r"cgroup \S+ was made again \d\d:\d\d:\d\d, and is counted", second)
    assert all(line.isprintable() for line in complaints)


def test_stream_to_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    complaints: list[str] = []
    source = source_of(tmp_path / "a", make_frames(3), loop=True)
    with open(tmp_path / "out", "wb") as file:
        out = Output(2, BrokenPipeError, file.fileno())
        assert headless.stream(source, out, None, complaints.append) == 0
    assert complaints == []


def test_stream_to_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    source = source_of(tmp_path / "a", make_frames(3), loop=True)
    with open(tmp_path / "out", "wb") as file:
        out = Output(2, OSError, file.fileno())
        with pytest.raises(ProbeError, match="cannot write to standard output: No space left"):
            headless.stream(source, out, None, lambda line: None)


def test_record_writes_what_the_source_shows(tmp_path: Path) -> None:
    frames, complaints = started(9), list[str]()
    path = tmp_path / "copy"
    source = source_of(tmp_path / "a", frames)
    assert headless.record(source, str(path), 3, complaints.append) == 0
    with Reader(path) as reader:
        assert list(reader) == frames[:5]
        assert reader.damage is None
    assert len(complaints) == 1
    assert complaints[0].startswith("5 frames, ")


def test_record_never_overwrites_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        headless.check_new(str(path), force=False)
    with pytest.raises(ProbeError, match="exists already"):
        headless.record(source_of(tmp_path / "a", make_frames(3)), str(path), 1, print)
    assert path.read_text() == "precious"
    headless.check_new(str(path), force=True)
    source = source_of(tmp_path / "b", make_frames(3))
    assert headless.record(source, str(path), 1, lambda line: None, force=True) == 0
    with Reader(path) as reader:
        assert len(list(reader)) == 2
    assert not any(thread.name == "replay" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("number", "frames", "status"),
    [(signal.SIGTERM, 4, 0), (signal.SIGINT, 4, 0), (signal.SIGINT, 1, 130)],
)
def test_signals_end_the_stream_cleanly(
    tmp_path: Path, number: signal.Signals, frames: int, status: int
) -> None:
    class Interrupted(ReplaySource):
        seen = 0

        def shown(self, frame: Frame) -> Frame:
            self.seen += 1
            if self.seen == frames:
                # To the main thread, as from the shell.
                os.kill(os.getpid(), number)
                self._stopped = frames == 1
            return frame

    before = signal.getsignal(number)
    source = Interrupted(write(tmp_path / "a", make_frames(5)), loop=True)
    source.set_interval(0.1)
    out, complaints = io.StringIO(), list[str]()
    assert headless.stream(source, out, None, complaints.append) == status
    assert complaints == []
    assert signal.getsignal(number) == before
    for line in out.getvalue().splitlines():
        json.loads(line)
    assert (status == 0) == (len(out.getvalue()) > 0)


def test_the_demo_is_a_sound_recording_of_a_real_kernel() -> None:
    (path,) = (ROOT / "tui" / "demo").glob("*.ptrec")
    with Reader(path) as reader:
        frames = list(reader)
        assert reader.damage is None
    assert len(frames) >= 40
    assert path.stat().st_size < 500_000
    last = frames[-1].samples
    assert {name: sample.state for name, sample in last.items()} == dict.fromkeys(names(), "on")
    assert all(sample.lost == 0 for sample in last.values())
    # Counting begins in the recording: its loop shows no jump.
    first, second = (frame.samples["syscalls"].cost.events for frame in frames[:2])
    assert first <= second - first
