# SPDX-License-Identifier: Apache-2.0
"""A commit to compare with: its files in a folder of their own, and the Python that runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench.measure import HERE, ROOT, BenchError

LOCK = "requirements.lock"
_SET_UP = """
root=$1 venv=$1/.venv
cd "$root" && source ./setup.sh && set_up_venv requirements.lock stamp-run
"""


class Side(NamedTuple):
    """A tree of probetop: where it is, and with which Python it runs."""

    name: str
    root: Path
    python: str

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables with which Python takes the modules of this tree, not of another."""
        return {**os.environ, "PYTHONPATH": str(self.root)}


class SideError(BenchError):
    """A side cannot do what is measured."""

    def __init__(self, side: Side, why: object) -> None:
        super().__init__(f"{side.name}: {why}")
        self.side = side


HERE_NOW = Side("this tree", ROOT, sys.executable)


def _git(*words: str) -> subprocess.CompletedProcess[bytes]:
    command = ["git", "-c", f"safe.directory={ROOT}", *words]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise BenchError("git is missing: apt-get install git") from error


def hash_of(commit: str) -> str:
    """The full name of a commit; raises BenchError if there is none."""
    done = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}")
    if done.returncode:
        raise BenchError(f"--against {commit}: no such commit here: see git log")
    return done.stdout.decode().strip()


def check_out(commit: str, folder: Path) -> Side:
    """The files of a commit below `folder`, set up to run. Raises BenchError.

    It shares this tree's packages where both ask for the same versions, else it gets its own. The
    repository is not changed.
    """
    name, root = hash_of(commit), folder / "other"
    root.mkdir()
    packed = _git("archive", "--format=tar", name)
    unpacked = subprocess.run(["tar", "-xf", "-", "-C", str(root)], input=packed.stdout)
    if packed.returncode or unpacked.returncode:
        raise BenchError(f"--against {commit}: its files cannot be read")
    worker = root / "bench" / "worker.py"
    if worker.parent.is_dir() and not worker.exists():
        shutil.copy(HERE / "worker.py", worker)
    python = sys.executable
    if (root / LOCK).read_bytes() != (ROOT / LOCK).read_bytes():
        if subprocess.run(["bash", "-c", _SET_UP, "bash", str(root)], stdout=sys.stderr).returncode:
            raise BenchError(f"--against {commit}: its packages cannot be installed")
        python = str(root / ".venv" / "bin" / "python")
    return Side(name[:9], root, python)
