# SPDX-License-Identifier: Apache-2.0
"""How long loading a probe may take, and each of its parts.

The environment variable PROBETOP_LOADER_TIMEOUT (seconds) is the time for a whole probe, for
machines far slower than any real one; what is no positive number is ignored. For how long a loader
is ready to run, and others have the CPUs, does not count: it is wanted most when the load is high.
"""

from __future__ import annotations

import os
from contextlib import suppress


def _loader_timeout(default: float = 10.0) -> float:
    try:
        seconds = float(os.environ.get("PROBETOP_LOADER_TIMEOUT", ""))
    except ValueError:
        return default
    return seconds if 0 < seconds < 86400 else default


LOADER_TIMEOUT = _loader_timeout()
"""Seconds that one probe may take to load; idle emulated machines need up to six."""
TARGET_SECONDS, ALL_SECONDS = LOADER_TIMEOUT / 5, LOADER_TIMEOUT * 3 / 5
"""Most that reading the files of one target, and of all of a request, may take."""
MOST_WAITED = 5 * LOADER_TIMEOUT
"""Seconds of waiting for a CPU that do not count, at most."""


def waited_for_cpu(pid: int | None = None) -> float:
    """Seconds for which a process (this one) was ready to run and had no CPU; 0 if unknown."""
    with (
        suppress(OSError, ValueError, IndexError),
        open(f"/proc/{pid or 'self'}/schedstat", "rb") as file,
    ):
        return int(file.read(100).split()[1]) / 1e9
    return 0.0
