# SPDX-License-Identifier: Apache-2.0
"""What changed between two runs: from Frames through a page's JSON to what is printed."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probes.core.errors import ProbeError
from probes.core.frame import Filters, Frame, Host
from probes.core.sample import Counts, Histogram
from probes.execs.sample import ExecEvent, ExecSample
from probes.latency.sample import LatencySample, Target
from probes.recording.file import Writer
from probes.report.summary import VERSION
from probes.syscalls.sample import SyscallSample
from tests.unit.hostile import hostile_frames
from tui import cli
from tui.commands.comparison import compare
from tui.commands.diff import diff
from tui.commands.diff_input import load
from tui.commands.figures import Key
from tui.export.write import export
from tui.settings.validators import UsageError


def run_of(
    reads: int, errors: int, bucket: int, programs: tuple[str, ...], seconds: int = 10
) -> list[Frame]:
    """A run with so many reads a second, durations of `bucket`, and these programs started."""
    out = []
    for tick in range(seconds + 1):
        n = tick * reads
        target = Target(
            spec="runq", mechanism="tracepoint", state="on",
            histogram=Histogram({bucket: n}, n, n) if n else Histogram({}, 0, 0),
        )  # fmt: skip
        events = tuple(
            ExecEvent(
                time=1.7e9 + tick, pid=100 * tick + at, ppid=1, uid=0, comm=name[:15], parent="sh",
                args=(name,), truncated=False, ret=0, cgroup="/", path=f"/bin/{name}",
            )
            for at, name in enumerate(programs)
        ) if tick else ()  # fmt: skip
        calls = {"read": Counts(n, tick * errors), "close": Counts(100 * tick, 0)}
        samples = {
            "syscalls": SyscallSample(state="on", calls=calls),
            "latency": LatencySample(state="on", targets={"runq": target}),
            "execs": ExecSample(state="on", execs=len(programs) * tick, events=events),
        }
        out.append(
            Frame(time=1.7e9 + tick, mono=float(tick), interval=1.0, host=Host("web-3", "6.1"),
                  samples=samples)
        )  # fmt: skip
    return out


BEFORE = run_of(1000, 1, 200, ("gcc", "gcc", "old"))
AFTER = run_of(3000, 300, 300, ("gcc", "gcc", "new"), seconds=20)


def record(path: Path, frames: list[Frame]) -> str:
    with Writer(path) as writer:
        for frame in frames:
            writer.write(frame)
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """The run before as a page, the one after as a recording."""
    page = tmp_path / "before.html"
    export(BEFORE, None, str(page))
    return str(page), record(tmp_path / "after.ptrec", AFTER)


def printed(a: str, b: str, **more: Any) -> str:
    out = io.StringIO()
    options = {"as_json": False, "html": None, "force": False, **more}
    assert diff(a, b, out, **options) == 0
    return out.getvalue()


def test_changes_are_found_across_lengths_and_kinds_of_files(files: tuple[str, str]) -> None:
    changes = {change.key: change for change in compare(load(files[0]), load(files[1]))}
    reads = changes[Key("syscall", "read", "calls/s")]
    assert (reads.before.value, reads.after.value, reads.ratio) == (1000, 3000, 3)
    assert changes[Key("syscall", "read", "errors/s")].ratio == 300
    assert Key("target", "runq", "p99") in changes
    assert changes[Key("program", "new", "starts/s")].word() == "new"
    assert changes[Key("program", "old", "starts/s")].word() == "gone"
    items = {key.item for key in changes}
    assert not items & {"gcc", "close"}


def test_errors_come_before_rates(files: tuple[str, str]) -> None:
    first, *_ = compare(load(files[0]), load(files[1]))
    assert first.key == Key("syscall", "read", "errors/s")


def test_text_json_and_page_say_the_same(files: tuple[str, str], tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    text = printed(*files, html=str(page))
    found = json.loads(printed(*files, as_json=True))
    line = next(line for line in text.splitlines() if "errors/s" in line)
    assert line.split() == ["syscall", "read", "errors/s", "1.0", "300", "x300"]
    assert found["changes"][0]["item"] == "read"
    assert found["changes"][0]["ratio"] == 300
    assert f"{len(found['changes'])} of {found['compared']} figures changed" in text
    assert json.dumps(found["changes"][0]["after"]) in page.read_text()
    assert "What changed" in page.read_text()


def test_noise_is_no_change(tmp_path: Path) -> None:
    a = record(tmp_path / "a", run_of(1000, 1, 200, ("gcc",)))
    b = record(tmp_path / "b", run_of(1100, 2, 200, ("gcc",)))
    assert compare(load(a), load(b)) == []
    assert compare(load(a), load(a)) == []


def test_other_machines_filters_and_probes_are_said(tmp_path: Path) -> None:
    other = [
        replace(frame, host=Host("web-4", "6.6"), filters=Filters(comm="x"), samples={
            "syscalls": frame.samples["syscalls"]})
        for frame in BEFORE
    ]  # fmt: skip
    a, b = record(tmp_path / "a", BEFORE), record(tmp_path / "b", other)
    text = printed(a, b)
    assert "!  Different hosts: web-3 and web-4." in text
    assert "!  Different kernels: 6.1 and 6.6." in text
    assert "!  Different filters: none and comm=x." in text
    assert "!  B has no latency." in text
    assert "program" not in text.split("figures")[0]


def test_hostile_names_do_not_act(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    export(hostile_frames(30), None, str(page))
    plain = record(tmp_path / "b", BEFORE)
    out = tmp_path / "d.html"
    text = printed(str(page), plain, html=str(out))
    assert all(line.isprintable() for line in text.splitlines())
    written = out.read_text()
    assert written.count("<script") == 2
    assert "<img" not in written


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[1]", b"null", b"<!doctype html><p>hello", b"\xff\xfe", b"[" * 100_000,
     b'{"summary": 1}', b'{"summary": 2}', b'{"summary": NaN}', b"PROBETOP RECORDING 1\n",
     b"PROBETOP RECORDING 9\n"],
)  # fmt: skip
def test_foreign_files_are_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(UsageError) as raised:
        diff(str(path), str(path), io.StringIO(), as_json=False, html=None, force=False)
    assert "\n" not in str(raised.value)
    assert raised.value.fix


def test_damaged_snapshots_never_show_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    export(BEFORE, None, str(path))
    whole = json.loads(path.read_text())
    chance = random.Random(7)
    bad: tuple[Any, ...] = (None, -1, 1e308, 10**400, "x", [], {}, True, [[]], [None], {"a": 1})
    refused = 0
    for _ in range(600):
        damaged = json.loads(json.dumps(whole))
        place: Any = damaged
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = chance.choice(keys)
            if not isinstance(place[key], dict | list) or not place[key] or chance.random() < 0.2:
                place[key] = chance.choice(bad)
                break
            place = place[key]
        path.write_text(json.dumps(damaged))
        try:
            run = load(str(path))
            compare(run, run)
        except ProbeError:
            refused += 1
    assert refused > 50


def test_cut_recordings_are_compared_and_said(tmp_path: Path) -> None:
    a = record(tmp_path / "a", BEFORE)
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "b").write_bytes(content[:-20])
    assert "!  B: the recording is damaged in 1 place" in printed(a, str(tmp_path / "b"))


@pytest.mark.parametrize(
    "words",
    [
        ("diff", "/nonexistent", "/nonexistent"),
        ("diff", "/etc/passwd", "/etc/passwd"),
        ("diff", "/etc/passwd"),
        ("snapshot", "a.pdf"),
        ("snapshot", "a.html", "--seconds", "0"),
        ("snapshot", "/proc/version.html/a.html", "-i", "5", "--seconds", "1"),
    ],
)
def test_what_was_typed_wrong_is_one_line_and_status_2(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("probetop: ")
    assert "; " in err


def test_a_page_is_not_replaced_unasked(files: tuple[str, str], tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    page.write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        printed(*files, html=str(page))
    assert page.read_text() == "precious"
    printed(*files, html=str(page), force=True)
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("instructions", [2.0**100, -(2.0**100), 0.0])
def test_a_quotient_that_is_no_number_is_left_out(tmp_path: Path, instructions: float) -> None:
    paths = []
    for name, cycles in (("a.json", 1e-320), ("b.json", 100.0)):
        process = {"comm": "x", "task_clock": 1e9, "cycles": cycles, "instructions": instructions}
        run = {
            "summary": VERSION, "host": "h", "release": "r", "arch": "a", "begin": 0, "end": 1,
            "seconds": 1, "filters": {}, "probes": {"pmc": {
                "seconds": 1.0, "processes": [process], "cpus": [], "others": {}}},
        }  # fmt: skip
        (tmp_path / name).write_text(json.dumps(run))
        paths.append(str(tmp_path / name))
    for a, b in (paths, paths[::-1]):
        assert "inf" not in printed(a, b)
        json.loads(printed(a, b, as_json=True))
