# SPDX-License-Identifier: Apache-2.0
"""The run of all tests: none is left out, what it leaves behind fails it, one line adds it up."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import not_in_ci, summary
from tests.kernel.harness import eventually, is_running
from tests.paths import ROOT

ORPHAN = """
import os, sys, time

def test_starts_what_outlives_it():
    if not os.fork():
        if not os.fork():
            time.sleep(600)
        os._exit(0)
    os.wait()
"""
CONFTEST = """
from tests import leftovers
from tests.conftest import nothing_is_left as nothing_is_left
from tests.conftest import pytest_runtest_makereport as pytest_runtest_makereport
from tests.conftest import signals_are_heard as signals_are_heard

leftovers.Leftovers.check.__defaults__ = (0.5,)
"""
STUCK = """
import subprocess
import pytest

ended = []

@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()
    ended.append(process)

@pytest.mark.timeout(0.5, func_only=True)
def test_waits_for_ever(sleeper):
    sleeper.wait()

def test_comes_after_it():
    assert len(ended) == 1
"""
SKIPPED = """
import pytest

def test_needs_a_tool():
    pytest.skip("a tool is missing")

@pytest.mark.xfail
def test_is_known_to_fail():
    assert False
"""
HEARING = """
import os, signal, subprocess
import pytest

@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_child_hears(number):
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    child.send_signal(number)
    child.stdin.close()
    assert child.wait() == -number
    # The run itself goes on, as its parent wanted.
    os.kill(os.getpid(), number)
"""


def inner(
    directory: Path, text: str, *options: str, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run pytest on a test file of its own."""
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_inner.py").write_text(text)
    command = [*prefix, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(directory), str(directory)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PROBETOP_COUNTS": ""}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=directory)


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_an_orphan_that_outlives_the_tests_fails_the_run(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = inner(tmp_path, ORPHAN, *options)
    assert done.returncode == 1, done.stdout
    assert "1 passed, 1 error" in done.stdout
    found = re.search(
        r"left behind: process (\d+) \(.*\), which holds BPF programs none", done.stdout
    )
    assert found
    eventually("it was killed", lambda: not is_running(int(found[1])))


def test_a_test_that_waits_for_ever_fails_and_is_cleaned_up(tmp_path: Path) -> None:
    done = inner(tmp_path, STUCK)
    assert done.returncode == 1, done.stdout
    assert "Timeout" in done.stdout
    assert "1 failed, 1 passed" in done.stdout


def test_signals_that_the_parent_ignores_are_heard(tmp_path: Path) -> None:
    """As a background job of a script, or below nohup, where children would ignore them too."""
    done = inner(tmp_path, HEARING, prefix=("sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh"))
    assert done.returncode == 0, done.stdout


def test_every_test_file_is_in_one_part_of_the_run() -> None:
    text = (ROOT / "test.sh").read_text()
    names = ("parallel", "kernel", "guests")
    parts = [re.search(rf"\b{name}=\((.*)\)", text) for name in names]
    places = [ROOT / word for part in parts if part for word in part[1].split()]
    assert len(places) > 5
    assert all(place.exists() for place in places)
    for path in (ROOT / "tests").rglob("test_*.py"):
        if path.parent.name not in ("guest", "guest_pmu"):  # which run in another kernel
            holding = [place for place in places if path == place or place in path.parents]
            assert len(holding) == 1, path


def test_the_last_line_adds_up_all_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, none = (tmp_path / name for name in ("first", "second", "none"))
    first.write_text(json.dumps({"passed": 4, "warnings": 1, "deselected": 7}))
    second.write_text(json.dumps({"passed": 2, "skipped": 3}))
    assert summary.main(["61.5", str(first), str(second)]) == 0
    line = capsys.readouterr().out.strip("= \n")
    assert line == "6 passed, 3 skipped, 1 warning in 61.50s (0:01:01)"
    second.write_text(json.dumps({"passed": 2, "failed": 1, "error": 2}))
    assert summary.main(["1", str(first), str(second)]) == 1
    assert "1 failed, 6 passed, 1 warning, 2 errors in" in capsys.readouterr().out
    assert summary.main(["1", str(first), str(none)]) == 1
    assert "unfinished runs: 1" in capsys.readouterr().out


def test_what_ci_may_skip_is_there() -> None:
    assert not_in_ci.NEVER.keys() & not_in_ci.BY_MACHINE.keys() == set()
    for place, reason in not_in_ci.ALLOWED.items():
        path, _, name = place.partition("::")
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M), place
        assert reason


def test_in_ci_a_skip_is_a_failure(tmp_path: Path) -> None:
    done = inner(tmp_path, SKIPPED, prefix=("env", "CI=true"))
    assert done.returncode == 1, done.stdout
    assert "tests must run in CI, but: Skipped: a tool is missing" in done.stdout
    assert "1 failed, 1 xfailed" in done.stdout
