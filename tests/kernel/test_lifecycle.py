# SPDX-License-Identifier: Apache-2.0
"""On, off and every kind of end: what is switched off, or killed, leaves nothing behind."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from probes.bpf import compiler as loader
from probes.bpf import object_cache
from probes.core.delta import count_delta
from probes.core.errors import ProbeError
from tests.kernel.harness import (
    Dashboard,
    Live,
    eventually,
    held_programs,
    is_running,
    left_in_kernel,
    open_descriptors,
    program_ids,
    programs_of_calls,
)

pytestmark = [pytest.mark.kernel, pytest.mark.concurrent]


def assert_gone(before: set[int], tree: set[int]) -> None:
    """No process of `tree` and, beside those of `before`, no program that nobody else holds."""
    eventually(f"processes {tree} have ended", lambda: not any(map(is_running, tree)))
    eventually(
        "the kernel has none of our programs",
        lambda: not left_in_kernel(before, sorted(tree)),
    )


def test_off_detaches_and_on_comes_back() -> None:
    with Live("syscalls", "execs") as live:
        both = held_programs()
        assert both <= program_ids()
        # execs has four programs: two events, and two calls that end.
        assert len(both) >= programs_of_calls() + 4
        live.source.toggle("execs", False)
        live.wait("it is off", lambda frame: frame.samples["execs"].state == "off")
        # The broker detaches when its Frame says so already.
        eventually("it alone is held", lambda: len(held_programs()) == programs_of_calls())
        kept = held_programs()
        gone = both - kept
        eventually("its programs are gone", lambda: not gone & program_ids())
        assert kept <= program_ids()
        live.source.toggle("execs", True)
        live.all_on("execs", "syscalls")
        again = held_programs()
        assert len(again) == len(both)
        assert again <= program_ids()
        assert kept <= again
    eventually("all programs are gone", lambda: not again & program_ids())
    assert held_programs() == set()


def test_toggling_leaks_nothing() -> None:
    with Live("syscalls", "execs", interval=0.05) as live:
        live.settled()
        programs: set[int] = set(held_programs())
        descriptors, number = open_descriptors(), len(held_programs())
        for _ in range(10):
            for name in ("syscalls", "execs"):
                live.source.toggle(name, False)
                live.wait(
                    "it is off",
                    lambda frame, name=name: frame.samples[name].state == "off",  # type: ignore[misc]
                )
                live.source.toggle(name, True)
                live.all_on(name)
                programs |= held_programs()
        live.settled()
        eventually("as many are held", lambda: len(held_programs()) == number)

        def as_before() -> bool:
            return open_descriptors() == descriptors

        eventually("there are as many descriptors as before", as_before)
        eventually("the others are gone", lambda: len(programs & program_ids()) == number)
    eventually("all programs are gone", lambda: not programs & program_ids())


def test_hasty_toggling_ends_in_the_last_wish() -> None:
    """Answers to requests that nobody waits for any more are let go."""
    before = program_ids()
    with Live("execs") as live:
        for on in (True, False) * 5:
            live.source.toggle("syscalls", on)
            time.sleep(0.03)
        live.source.toggle("execs", False)
        eventually("nothing is held", lambda: not held_programs())
        live.source.toggle("syscalls", True)
        live.all_on("syscalls")
        eventually("it alone is held", lambda: len(held_programs()) == programs_of_calls())
    assert_gone(before, set())


def test_stop_leaves_nothing() -> None:
    before, descriptors = program_ids(), open_descriptors()
    with Live("syscalls", "execs") as live:
        assert program_ids() - before
    assert not live.ends
    assert_gone(before, set())
    assert open_descriptors() == descriptors


def test_quit_leaves_nothing() -> None:
    before = program_ids()
    with Dashboard() as dashboard:
        dashboard.states(syscalls="on", execs="on")
        dashboard.broker()
        assert held_programs(dashboard.pid)
        assert dashboard.end() == ""
    assert dashboard.lines[-1] == {"stopped": False, "uid": 65534}
    assert_gone(before, dashboard.tree)


def kill(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("seed", range(7))
def test_killed_dashboard_leaves_nothing(seed: int) -> None:
    before = program_ids()
    with Dashboard() as dashboard:
        eventually("there is a broker", dashboard.broker)
        time.sleep(random.Random(seed).random())
        dashboard.loader()
        assert kill(dashboard.pid)
        assert_gone(before, dashboard.tree)


@pytest.mark.parametrize("seed", range(7))
def test_killed_broker_ends_the_source_with_one_sentence(seed: int) -> None:
    before = program_ids()
    with Dashboard() as dashboard:
        broker = eventually("there is a broker", dashboard.broker)
        time.sleep(random.Random(seed).random())
        dashboard.loader()
        assert kill(broker)
        end = "the privileged helper has ended; no probe is attached any more"
        eventually("it says so", lambda: {"end": end} in dashboard.lines)
        eventually("nothing is attached", lambda: not held_programs(dashboard.pid))
        assert sum("end" in line for line in dashboard.lines) == 1
        assert dashboard.end() == ""
        assert dashboard.process.returncode == 0
        assert_gone(before, dashboard.tree)


@pytest.mark.parametrize("seed", range(7))
def test_killed_loader_is_one_probes_error(seed: int) -> None:
    before = program_ids()
    with Dashboard({"on": ["syscalls"]}) as dashboard:
        dashboard.states(syscalls="on")
        dashboard.command(toggle=("execs", True))
        loader = eventually("there is a loader", dashboard.loader)
        time.sleep(random.Random(seed).random() * 0.25)
        kill(loader)
        line = dashboard.line(
            "it has failed, unless it was ready before",
            lambda line: line.get("states", {}).get("execs") in ("failed", "on"),
        )
        assert line["states"]["syscalls"] == "on"
        if line["states"]["execs"] == "failed":
            assert line["why"]["execs"] == "the loader was ended by SIGKILL"
            dashboard.command(toggle=("execs", True))
        dashboard.states(execs="on", syscalls="on")
        assert dashboard.end() == ""
        assert_gone(before, dashboard.tree)


def test_killing_the_loader_as_it_starts_fails_that_probe_only() -> None:
    with Dashboard({"on": ["syscalls"]}) as dashboard:
        dashboard.states(syscalls="on")
        dashboard.command(toggle=("execs", True))
        assert kill(eventually("there is a loader", dashboard.loader))
        line = dashboard.states(execs="failed", syscalls="on")
        assert line["why"] == {"syscalls": None, "execs": "the loader was ended by SIGKILL"}


def test_the_frozen_broker_does_not_freeze_the_screen() -> None:
    with Dashboard() as dashboard:
        dashboard.states(syscalls="on", execs="on")
        broker = dashboard.broker()
        assert broker is not None
        os.kill(broker, signal.SIGSTOP)
        try:
            dashboard.command(toggle=("execs", False))
            off = dashboard.states(execs="off", syscalls="on")
            dashboard.line("still counting", lambda line: line["calls"] > off["calls"])
            dashboard.command(toggle=("execs", True))
            dashboard.states(execs="starting", syscalls="on")
        finally:
            os.kill(broker, signal.SIGCONT)
        dashboard.states(execs="on", syscalls="on")


def test_what_was_compiled_once_needs_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader is a fork of this process, and finds here what it would find there."""
    monkeypatch.setattr(object_cache, "DIRECTORY", tmp_path)
    with Live("syscalls", "execs") as live:
        programs = len(held_programs())
    assert len(list(tmp_path.iterdir())) == 2

    def refuse() -> None:
        raise ProbeError("there is no compiler", "")

    monkeypatch.setattr(loader, "import_bcc", refuse)
    with Live("syscalls", "execs") as live:
        assert len(held_programs()) == programs
        before = live.syscalls()
        for _ in range(1000):
            os.getppid()
        delta = count_delta(before.matrix, live.syscalls().matrix)
        assert delta[os.getpid(), "getppid"].n == 1000
    for path in tmp_path.iterdir():
        path.write_bytes(b"x")
    with Live("execs", expect_on=False) as live:
        frame = live.wait("it has failed", lambda frame: frame.samples["execs"].state == "failed")
        assert frame.samples["execs"].why == "there is no compiler"
