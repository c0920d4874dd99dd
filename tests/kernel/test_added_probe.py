# SPDX-License-Identifier: Apache-2.0
"""The probe of CONTRIBUTING.md's tutorial, put into a copy of the program by its steps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    shutil.copytree(EXAMPLE / "forks", tree / "probes" / "forks")
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


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Processes that create others, all the time."""
    program = "import os\nwhile True:\n    os.fork() or os._exit(0)\n    os.wait()"
    working = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in working:
            one.kill()
            one.wait()


def test_a_snapshot_has_what_was_counted_and_when(tree: Path) -> None:
    snapshot = str(tree / "forks.json")
    with load(1):
        run(tree, "snapshot", snapshot, "--probes", "forks", "--seconds", "2")
    summary: Any = json.loads(Path(snapshot).read_text("utf-8"))
    probe = summary["probes"]["forks"]
    assert probe["state"] == "on"
    assert created(probe["cpus"]) == probe["cost"]["events"] > 0
    rates, seconds = summary["series"]["forks"]["created"], summary["series"]["seconds"]
    counted = sum([rate * length for rate, length in zip(rates, seconds, strict=True) if rate])
    assert counted == pytest.approx(created(probe["cpus"]), rel=0.01)


def test_a_page_has_its_table(tree: Path) -> None:
    page = str(tree / "forks.html")
    with load(1):
        run(tree, "snapshot", page, "--probes", "forks", "--seconds", "1")
    text = Path(page).read_text("utf-8")
    assert 'id="forks-cpus"' in text
    assert "created a second" in text


def test_runs_are_compared(tree: Path) -> None:
    """A recording with many creations and one with few differ by them."""
    busy, calm = str(tree / "busy.ptrec"), str(tree / "calm.ptrec")
    with load(1):
        run(tree, "record", busy, "--probes", "forks", "--seconds", "2")
    # A filter by a process that creates nothing: then there is not one.
    run(tree, "record", calm, "--probes", "forks", "--seconds", "2", "-p", str(os.getpid()))
    changes = json.loads(run(tree, "diff", "--json", busy, calm).stdout)["changes"]
    created = [one for one in changes if one["quantity"] == "created/s"]
    assert created
    assert {one["change"] for one in created} == {"gone"}
    assert json.loads(run(tree, "diff", "--json", busy, busy).stdout)["changes"] == []


def test_the_agent_exposes_it(tree: Path) -> None:
    """Its counter is what the Frames that it was made of counted together."""
    program = (
        "import json, sys\n"
        "from prometheus_client.parser import text_string_to_metric_families as parsed\n"
        "from tui.registry import SAMPLES\n"
        "from tui.agent.metrics.collector import Metrics\n"
        "from probes.recording.file import Reader\n"
        "metrics, frames = Metrics(), list(Reader(sys.argv[1]))\n"
        "for frame in frames: metrics.add(frame)\n"
        "text = metrics.render('text/plain')[0].decode()\n"
        "families = [f for f in parsed(text) if f.name == 'probetop_forks_created']\n"
        "last = frames[-1].samples['forks'].created\n"
        "print(json.dumps([sum(s.value for f in families for s in f.samples), "
        "sum(last.values())]))\n"
    )
    recording = str(tree / "exposed.ptrec")
    with load(1):
        run(tree, "record", recording, "--probes", "forks", "--seconds", "1")
    done = subprocess.run(
        [sys.executable, "-c", program, recording],
        cwd=tree, capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    exposed, counted = json.loads(done.stdout)
    assert exposed == counted > 0


def test_the_picture_has_its_pane(tree: Path) -> None:
    picture = tree / "forks.svg"
    run(tree, "snapshot", str(picture), "--probes", "forks", "--seconds", "1")
    assert "created/s" in picture.read_text("utf-8")
