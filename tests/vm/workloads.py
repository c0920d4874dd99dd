# SPDX-License-Identifier: Apache-2.0
"""Compiles the workload programs for a guest's architecture, which has no compiler itself."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

from tests.vm.kernels import Unavailable

SOURCES = Path(__file__).resolve().parents[1] / "workloads"
FLAGS = ["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-static"]
TINY = ["-nostdlib", "-fno-stack-protector"]
NAMES = ("calls", "counted", "counters", "functions", "thread_exec", "timed", "tiny", "usdt")


def build(machine: str, directory: Path) -> None:
    """Compile NAMES for `machine` (as uname says it) into `directory`.

    Raises Unavailable when there is no compiler for it.
    """
    native = machine == platform.machine()
    compiler = "gcc" if native else f"{machine}-linux-gnu-gcc"
    if shutil.which(compiler) is None:
        raise Unavailable(f"{compiler} is missing: as root, ./test.sh --vm installs it")
    include = directory / "include" / "sys"
    include.mkdir(parents=True)
    # These two are the same for all machines, but lie among this one's own headers.
    for header in Path("/usr/include").glob("*/sys/sdt*.h"):
        shutil.copy(header, include)
    for name in NAMES:
        flags = [*FLAGS, *(TINY if name == "tiny" else ["-pthread"]), f"-I{include.parent}"]
        source, program = SOURCES / f"{name}.c", directory / name
        subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True)
