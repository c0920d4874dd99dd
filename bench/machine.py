# SPDX-License-Identifier: Apache-2.0
"""Where, with what and when figures were measured: the head of RESULTS.md."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version

import probes
from bench import peers
from bench.measure import ROOT
from probes.core import kernel


def _output(*command: str) -> str:
    """What a command prints, empty if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _cpu() -> str:
    text = kernel.read_text("/proc/cpuinfo") or ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return found[1] if found else platform.machine()


def _memory() -> str:
    found = re.search(r"^MemTotal:\s*(\d+) kB", kernel.read_text("/proc/meminfo") or "", re.M)
    return f"{int(found[1]) / 1e6:.1f} GB" if found else "?"


def _versions() -> str:
    ours = [f"Python {platform.python_version()}", f"Textual {version('textual')}"]
    return ", ".join([*ours, *peers.versions()])


def _commit() -> str:
    """The commit, and whether the programs differ from it."""
    commit = _output("git", "-c", f"safe.directory={ROOT}", "rev-parse", "--short", "HEAD")
    if not commit:
        return ""
    wanted = ["status", "--porcelain", "--", "probes", "tui", "bench/*.py", "bench/*.c"]
    changed = _output("git", "-c", f"safe.directory={ROOT}", *wanted)
    return f", commit {commit}{' with changes' if changed else ''}"


def describe(rounds: int, load: float, arguments: Sequence[str]) -> str:
    """What the figures are, and of which machine; `load` is its load average at the start."""
    uname = os.uname()
    return "\n".join(
        [
            "# What probetop costs",
            "",
            "Written by this command, in one run, with nothing added by hand:",
            "",
            f"    {' '.join(['sudo ./run.sh bench', *arguments])}",
            "",
            f"- machine: {os.cpu_count()} CPUs ({_cpu()}), {_memory()}, "
            f"{_output('systemd-detect-virt') or 'virtualization not known'}",
            f"- kernel: {uname.release} {uname.machine}",
            f"- probetop {probes.__version__}{_commit()}; {_versions()}",
            f"- {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, "
            f"load average at the start {load:.1f}",
            "",
            f"Variants took turns in {rounds} round{'s' * (rounds > 1)}. Figures are medians of "
            "these, and of what is added, or compared, the medians of differences and ratios "
            "within a round. Behind them stands the interval in which the true median lies (order "
            "statistics; 95 % or more where there are six rounds). Compare figures of one run "
            "only.",
            "",
        ]
    )
