# SPDX-License-Identifier: Apache-2.0
"""The command line: what it takes, what it refuses and how, without any privileges."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import probes
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.recording.file import Reader
from tests.paths import ROOT
from tests.unit.probes.recording.test_recording import make_frames, write
from tui import cli
from tui.registry import names


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
    from tui.settings.validators import check_cgroup

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


def test_a_cgroup_of_v1_is_that_of_the_same_path_or_says_which_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probes.host import cgroups
    from tui.settings.validators import check_cgroup

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
        with pytest.raises(ProbeError, match="exists only in cgroup v1") as raised:
            check_cgroup(given)
        assert "give /new/home" in raised.value.fix
    where[811][""] = "/"
    with pytest.raises(ProbeError) as raised:
        check_cgroup("/old")
    assert "in the root of cgroup2" in raised.value.fix


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
