# SPDX-License-Identifier: Apache-2.0
"""Return probes of kernel functions in which many threads may be at the same time.

The kernel notes each call under way, and has space for them from the start. A return probe
by perf_event_open gets space for ten calls, or as many as there are CPUs (two for each on
newer kernels), so that a few threads which block inside of the function take it all, and
every other return is missed. Only tracefs lets us say how much it shall be (MAXACTIVE in
Documentation/trace/kprobetrace.rst).

What is defined there outlives its descriptors: the broker tidies up when some were closed.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from probes.core import kernel

AT_ONCE = 1024
"""Calls under way at the same time, of one function; some 64 bytes each."""
GROUP = "probetop"


def define(function: str) -> int | None:
    """A tracepoint's number for the returns of a function; None where that is not possible.

    It belongs to the parent of this process, which is the broker.
    """
    tracefs = kernel.tracefs()
    name = f"r{os.getppid()}_{secrets.token_hex(4)}"
    if tracefs is None or not _command(tracefs, f"r{AT_ONCE}:{GROUP}/{name} {function}"):
        return None
    number = kernel.read_text(tracefs / "events" / GROUP / name / "id")
    return int(number) if number else None


def tidy() -> bool:
    """Remove all that is not in use, whoever left it; True if nothing of this process is left."""
    tracefs = kernel.tracefs(mount=False)
    text = kernel.read_text(tracefs / "kprobe_events") if tracefs else None
    left = False
    for name, owner in re.findall(rf"^r\d*:{GROUP}/(r(\d+)_\w+) ", text or "", re.M):
        assert tracefs is not None
        removed = _command(tracefs, f"-:{GROUP}/{name}")
        left |= not removed and int(owner) == os.getpid()
    return not left


def _command(tracefs: Path, line: str) -> bool:
    """Give a command to the list of kernel probes; False if it was refused."""
    try:
        # Appending: a list that is opened for anything else loses what others have there.
        fd = os.open(tracefs / "kprobe_events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, f"{line}\n".encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
