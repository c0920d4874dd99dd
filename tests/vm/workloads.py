# SPDX-License-Identifier: Apache-2.0
"""Compiles the workload programs for a guest's architecture, which has no compiler itself."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.paths import ROOT
from tests.vm.kernels import Unavailable

SOURCES = ROOT / "tests" / "workloads"
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


COMPILED = ("msgspec", "capstone", "pycxxfilt")
"""Packages that the program imports and that are not pure Python."""
PLATFORMS = {
    "aarch64": ("manylinux_2_28_aarch64", "manylinux2014_aarch64", "manylinux_2_17_aarch64")
}


def packages(machine: str, directory: Path) -> Path | None:
    """The locked packages for a machine of another kind; None for this machine's kind."""
    if machine == platform.machine():
        return None
    lock = (ROOT / "requirements.lock").read_text()
    wanted = [block for block in re.split(r"\n(?=\S)", lock) if block.split("==")[0] in COMPILED]
    assert len(wanted) == len(COMPILED)
    names, target = directory / "requirements", directory / "packages"
    names.write_text("\n".join(wanted) + "\n")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(target)]
    for name in PLATFORMS[machine]:
        command += ["--platform", name]
    subprocess.run([*command, "--python-version", "3.11", "-r", str(names)], check=True)
    return target
