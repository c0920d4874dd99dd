# SPDX-License-Identifier: Apache-2.0
"""How long loading a probe may take, and each of its parts.

The environment variable PROBETOP_LOADER_TIMEOUT (seconds) is the time for a whole probe, for
machines far slower than any real one; what is no positive number is ignored.
"""

from __future__ import annotations

import os


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
