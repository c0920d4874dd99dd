# SPDX-License-Identifier: Apache-2.0
"""The probe of CONTRIBUTING.md's tutorial, put into a copy of the program by its steps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT

pytestmark = pytest.mark.kernel
EXAMPLE = ROOT / "docs" / "add-a-probe"
MADE = 200


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of probes and tui with the probe in it."""
    tree = tmp_path_factory.mktemp("added")
    for name in ("probes", "tui"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in EXAMPLE.glob("fork*"):
        shutil.copy(path, tree / "probes")
    shutil.copy(EXAMPLE / "panes" / "forks.py", tree / "tui" / "panes")
    registry = tree / "tui" / "registry.py"
    before, _, after = registry.read_text("utf-8").partition("\n)\n\n\ndef _load")
    entry = (EXAMPLE / "registry.txt").read_text("utf-8")
    registry.write_text(f"{before}\n{entry})\n\n\ndef _load{after}", "utf-8")
    tree.chmod(0o755)
    return tree


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tui.cli", *arguments]
    return subprocess.run(
        command, cwd=tree, capture_output=True, text=True, check=True, timeout=100
    )


def created(cpus: list[dict[str, int]]) -> int:
    return sum([row["created"] for row in cpus])


def test_a_stream_counts_what_was_made(tree: Path) -> None:
    """A filter leaves only what this process creates."""
    command = [sys.executable, "-m", "tui.cli", "stream", "--probes", "forks"]
    command += ["-i", "0.5", "-p", str(os.getpid())]
    with subprocess.Popen(command, cwd=tree, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        counts = [created(json.loads(process.stdout.readline())["probes"]["forks"]["cpus"])]
        for _ in range(MADE):
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
        while sum(counts) < MADE:
            counts.append(created(json.loads(process.stdout.readline())["probes"]["forks"]["cpus"]))
        counts.append(created(json.loads(process.stdout.readline())["probes"]["forks"]["cpus"]))
        process.send_signal(signal.SIGTERM)
    assert sum(counts) == MADE


def test_it_is_recorded_compared_and_in_snapshots(tree: Path) -> None:
    recording, snapshot = str(tree / "forks.ptrec"), str(tree / "forks.json")
    run(tree, "record", recording, "--probes", "forks", "--seconds", "1")
    assert "0 of 0 figures changed" in run(tree, "diff", recording, recording).stdout
    run(tree, "snapshot", snapshot, "--probes", "forks", "--seconds", "1")
    probe: Any = json.loads(Path(snapshot).read_text("utf-8"))["probes"]["forks"]
    assert probe["state"] == "on"
    assert created(probe["cpus"]) == probe["cost"]["events"]


def test_the_picture_has_its_pane(tree: Path) -> None:
    picture = tree / "forks.svg"
    run(tree, "snapshot", str(picture), "--probes", "forks", "--seconds", "1")
    assert "created/s" in picture.read_text("utf-8")
