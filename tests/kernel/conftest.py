# SPDX-License-Identifier: Apache-2.0
"""Workloads, compiled once for all kernel tests."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[1] / "workloads"
FLAGS = {
    "tiny": ["-nostdlib", "-fno-stack-protector"],
}
"""Beside those for all of them; the others need threads."""


@pytest.fixture(scope="session")
def program() -> Iterator[Callable[[str], Path]]:
    """A workload by the name of its source, statically linked: its start makes few calls."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is missing: install the package gcc")
    # Other users run them too, and pytest's own directories are root's alone.
    directory = Path(tempfile.mkdtemp(prefix="probetop-workloads-"))
    directory.chmod(0o755)

    def compiled(name: str) -> Path:
        out = directory / name
        if not out.exists():
            flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static"]
            flags += FLAGS.get(name, ["-pthread"])
            command = [compiler, *flags, str(SOURCES / f"{name}.c"), "-o", str(out)]
            subprocess.run(command, check=True)
        return out

    yield compiled
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def calls(program: Callable[[str], Path]) -> Path:
    """The workload that makes system calls."""
    return program("calls")
