# SPDX-License-Identifier: Apache-2.0
"""Workloads, compiled once for all kernel tests, the container image, and what must not be left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel import image
from tests.kernel.container import CONTAINERFILE
from tests.kernel.harness import eventually, running_children
from tests.paths import ROOT

SOURCES = Path(__file__).resolve().parents[1] / "workloads"
FLAGS = {
    "tiny": ["-nostdlib", "-fno-stack-protector"],
}
"""Beside those for all of them; the others need threads."""
OTHERS = {".cpp": "g++", ".go": "go", ".rs": "rustc"}
CXX_FLAGS = ["-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]


@pytest.fixture(scope="module", autouse=True)
def no_child_is_left() -> Iterator[None]:
    """What a module's tests start ends with them: its load would be in the counts of others."""
    before = set(running_children())
    yield

    def left() -> dict[int, str]:
        return {pid: words for pid, words in running_children().items() if pid not in before}

    try:
        eventually("all children have ended", lambda: not left())
    except AssertionError:
        found = left()
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"children are left: {found}") from None


@pytest.fixture(scope="session")
def program() -> Iterator[Callable[[str], Path]]:
    """A workload by the name of its source.

    Those in C are statically linked: their start makes few calls. Where the compiler of another
    language is missing, the test is skipped.
    """
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is missing: install the package gcc")
    # Other users run them too, and pytest's own directories are root's alone.
    directory = Path(tempfile.mkdtemp(prefix="probetop-workloads-"))
    directory.chmod(0o755)

    def compiled(name: str) -> Path:
        out = directory / name
        others = [SOURCES / f"{name}{end}" for end in OTHERS]
        other = next((source for source in others if source.exists()), None)
        if other is not None and not out.exists():
            _compile_other(other, out)
        if not out.exists():
            flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static"]
            flags += FLAGS.get(name, ["-pthread"])
            command = [compiler, *flags, str(SOURCES / f"{name}.c"), "-o", str(out)]
            subprocess.run(command, check=True)
        return out

    yield compiled
    shutil.rmtree(directory)


def _compile_other(source: Path, out: Path) -> None:
    """Compile what is not C; skips the test where that is not possible."""
    tool = OTHERS[source.suffix]
    compiler = shutil.which(tool)
    if compiler is None:
        pytest.skip(f"{tool} is missing")
    commands = {
        ".cpp": [compiler, *CXX_FLAGS, str(source), "-o", str(out)],
        ".go": [compiler, "build", "-o", str(out), str(source)],
        ".rs": [compiler, "-O", "-C", "panic=unwind", "-o", str(out), str(source)],
    }
    home = {"HOME": str(out.parent), "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    settings = {**os.environ, **home} if source.suffix == ".go" else None
    subprocess.run(commands[source.suffix], check=True, env=settings)


@pytest.fixture(scope="session")
def calls(program: Callable[[str], Path]) -> Path:
    """The workload that makes system calls."""
    return program("calls")


STEADY = """
import os, time
while True:
    os.getppid()
    os.close(os.open("/dev/null", os.O_RDONLY))
    time.sleep(0.01)
"""


@pytest.fixture
def steady_calls() -> Iterator[int]:
    """The pid of a process that calls getppid and openat 100 times a second each.

    Nobody else may do so on an idle machine.
    """
    child = subprocess.Popen([sys.executable, "-c", STEADY])
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


@pytest.fixture(scope="session")
def built() -> Iterator[image.Stage]:
    """The image of deploy/Containerfile; most of it is kept from the last time."""
    for tool in ("mmdebstrap", "unshare"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: test.sh installs it")
    with tempfile.TemporaryDirectory(prefix="probetop-image-") as work:
        yield image.build(CONTAINERFILE, ROOT, Path(work))
