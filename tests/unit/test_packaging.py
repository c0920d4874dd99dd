# SPDX-License-Identifier: Apache-2.0
"""What is installed, from where, and that starting a second time starts nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT

LOCKS = ("requirements.lock", "requirements-serve.lock", "requirements-dev.lock")


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def locked(name: str) -> dict[str, str]:
    """Package -> version of a lock file."""
    pattern = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", re.MULTILINE)
    return dict(pattern.findall((ROOT / name).read_text()))


@pytest.mark.parametrize("name", LOCKS)
def test_locks_are_hashed_and_name_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    requirements = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(requirements) == len(locked(name)) > 5
    for requirement in text.split("\n\n"):
        for block in re.split(r"\n(?=\S)", requirement.strip()):
            assert block.startswith("#") or "--hash=sha256:" in block, block
    assert "://" not in text
    assert "index" not in text


def test_larger_locks_agree_with_the_smaller_ones() -> None:
    runtime, serve, dev = (locked(name) for name in LOCKS)
    assert {name: serve.get(name) for name in runtime} == runtime
    assert {name: dev.get(name) for name in serve} == serve


def test_the_other_bcc_is_no_dependency() -> None:
    extras = project()["optional-dependencies"]
    everything = project()["dependencies"] + extras["serve"] + extras["dev"]
    names = {re.split(r"[<>=\[ ;]", requirement)[0] for requirement in everything}
    assert names <= {"probetop"}.union(*(locked(lock) for lock in LOCKS))
    assert "bcc" not in names.union(*(locked(lock) for lock in LOCKS))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of run.sh whose .venv is set up: its python prints how it was called."""
    for name in ("run.sh", "setup.sh", *LOCKS):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    for lock, stamp in ((LOCKS[0], "stamp-run"), (LOCKS[1], "stamp-serve")):
        text = (ROOT / lock).read_text()
        (tmp_path / ".venv" / stamp).write_text(f"{tmp_path}\n{text}")
    return tmp_path


def start(checkout: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "run.sh"), *args],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": os.environ["PATH"], **variables},
    )


def test_run_passes_its_arguments_on(checkout: Path) -> None:
    done = start(checkout, "demo", "--comm", "a b", "", "*")
    assert done.stdout.splitlines() == ["-P", "-m", "tui.cli", "demo", "--comm", "a b", "", "*"]
    assert (done.returncode, done.stderr) == (0, "")


def test_run_bench_measures(checkout: Path) -> None:
    done = start(checkout, "bench", "--only", "calls")
    assert done.stdout.splitlines() == ["-P", "-m", "bench", "--only", "calls"]
    assert (done.returncode, done.stderr) == (0, "")


def test_second_start_starts_no_process(checkout: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace = checkout / "trace"
    command = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=process", "./run.sh", "demo"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "demo", done.stderr
    calls = trace.read_text()
    assert len(re.findall(r"execve\(.* = 0$", calls, re.MULTILINE)) == 3  # env, bash, python
    assert not re.search(r"\b(clone|clone3|fork|vfork)\(", calls)


def test_stale_set_up_is_noticed_and_explained(checkout: Path) -> None:
    # pip refuses the file before it looks anything up.
    (checkout / "requirements.lock").write_text("not a requirement !\n")
    (checkout / ".venv/bin/python").write_text("#!/bin/sh\necho cannot work >&2\nexit 1\n")
    (checkout / ".venv/bin/python").chmod(0o755)
    done = start(checkout, "demo")
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("probetop: ")
    assert "failed" in last
