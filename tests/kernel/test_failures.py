# SPDX-License-Identifier: Apache-2.0
"""A loader that fails, crashes or hangs, and kernels that lack something: one probe's error."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from probes.broker import server as broker
from probes.core import kernel
from probes.core.frame import Frame
from tests.kernel import broken
from tests.kernel.harness import (
    PATHS,
    Live,
    eventually,
    held_programs,
    program_ids,
    programs_of_calls,
)

pytestmark = pytest.mark.kernel


@contextmanager
def with_broken(name: str, log: Path | None = None) -> Iterator[Live]:
    """System calls as they are, and an exec probe that is broken; both are switched on."""
    paths = {**PATHS, "execs": f"tests.kernel.broken:{name}"}
    with Live("execs", "syscalls", paths=paths, log=log, expect_on=False) as live:
        yield live


def failed(live: Live) -> Frame:
    """Wait until the exec probe has failed and the other one runs."""
    return live.wait(
        "execs failed, syscalls on",
        lambda frame: (
            [frame.samples[name].state for name in ("execs", "syscalls")] == ["failed", "on"]
        ),
    )


@pytest.mark.parametrize(
    ("name", "why", "fix"),
    [
        ("Raises", "a bug in plan", ""),
        ("Refuses", "this cannot be", "do that"),
        ("Crashes", "SIGSEGV", "switch the probe on again"),
        ("DoesNotCompile", "execs.bpf.c does not compile", "log"),
        ("LacksOffset", "task_struct.no_such_member", "report this kernel"),
        ("LacksTracepoint", "raw tracepoint nowhere", "probetop doctor"),
        ("LacksMap", "no_such_map", ""),
    ],
)
def test_failure_is_one_probes_error(name: str, why: str, fix: str) -> None:
    with with_broken(name) as live:
        sample = failed(live).samples["execs"]
        assert sample.why is not None
        assert sample.fix is not None
        assert why in sample.why
        assert fix in sample.fix
        assert "\n" not in sample.why
        assert sample.fix
        assert len(held_programs()) == programs_of_calls()
        # It can be tried again, and fails again; the other one goes on meanwhile.
        first = live.syscalls()
        live.source.toggle("execs", False)
        off = live.wait("it is off", lambda frame: frame.samples["execs"].state == "off")
        assert off.samples["execs"].why is None
        live.source.toggle("execs", True)
        again = failed(live).samples["execs"]
        assert again.why == sample.why
        assert sum(n.n for n in live.syscalls().calls.values()) > sum(
            n.n for n in first.calls.values()
        )


def test_hanging_loader_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(broker, "LOADER_TIMEOUT", 3.0)
    monkeypatch.setattr(broken, "MENDED", tmp_path / "mended")
    with with_broken("Sleeps") as live:
        sample = failed(live).samples["execs"]
        assert sample.why is not None
        assert "did not answer" in sample.why
        assert sample.fix
        children = Path(f"/proc/{live.broker}/task/{live.broker}/children")
        eventually("its process is gone", lambda: children.read_text() == "")
        (tmp_path / "mended").touch()
        live.source.toggle("execs", True)
        live.all_on("execs", "syscalls")


def test_what_the_tools_print_goes_to_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_text("kept\n")
    with with_broken("Prints", log) as live:
        sample = failed(live).samples["execs"]
        assert (sample.why, sample.fix) == ("it printed", "read the log")
    text = log.read_text()
    assert text.startswith("kept\n")
    assert "the last line" in text
    assert len(text) < 20_000
    assert capfd.readouterr() == ("", "")


def test_the_crash_keeps_what_was_printed_before(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with with_broken("Crashes", log) as live:
        failed(live)
    assert "compiler: about to crash" in log.read_text()


def test_a_bug_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with with_broken("Raises", log) as live:
        failed(live)
    text = log.read_text()
    assert "Traceback" in text
    assert "RuntimeError: a bug in plan" in text


def test_the_compilers_words_are_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    with with_broken("DoesNotCompile", log) as live:
        failed(live)
    assert "error:" in log.read_text()
    assert capfd.readouterr() == ("", "")


def test_a_missing_optional_tracepoint_is_a_note() -> None:
    with with_broken("LacksOptional") as live:
        frame = live.all_on("execs", "syscalls")
        assert frame.samples["execs"].notes
        assert all("_gone" in note for note in frame.samples["execs"].notes)
        since = len(live.events())
        subprocess.run(["/bin/true"], check=True)
        live.settled()
        assert [e for e in live.events()[since:] if e.comm == "true"]


def test_without_bcc_every_probe_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "find_bcc", list)
    with Live("syscalls", "execs", expect_on=False) as live:
        frame = live.wait(
            "both failed", lambda frame: {s.state for s in frame.samples.values()} == {"failed"}
        )
        why, fix = kernel.bcc_hint()
        for sample in frame.samples.values():
            assert (sample.why, sample.fix) == (why, fix)
        assert "bpfcc" in fix or "bcc" in fix


def test_without_type_information(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a kernel built without BTF, and on a machine without libbpf."""
    from probes.bpf import btf

    monkeypatch.setattr(btf, "_LIBRARIES", ("libnothing.so.9",))
    with Live("syscalls", expect_on=False) as live:
        frame = live.wait("it failed", lambda frame: frame.samples["syscalls"].state == "failed")
        assert frame.samples["syscalls"].why == "libbpf is missing"


def test_maps_that_cannot_be_read_leave_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dashboard's side fails after the loader's has succeeded."""
    before = program_ids()
    with Live(interval=0.05) as live:

        def refuse(loaded: object) -> None:
            raise OSError("no memory")

        probe = live.probes["syscalls"]
        monkeypatch.setattr(probe, "adopt", refuse)
        live.source.toggle("syscalls", True)
        frame = live.wait("it failed", lambda frame: frame.samples["syscalls"].state == "failed")
        assert "no memory" in str(frame.samples["syscalls"].why)
        eventually("nothing is held", lambda: held_programs() == set())
        monkeypatch.undo()
        live.source.toggle("syscalls", True)
        live.all_on("syscalls")
    assert not held_programs() & (program_ids() - before)
