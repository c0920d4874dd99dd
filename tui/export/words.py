# SPDX-License-Identifier: Apache-2.0
"""Times as a file says them, with the zone: whoever reads it may be elsewhere."""

from __future__ import annotations

import time


def stamp(seconds: float) -> str:
    """Unix seconds as date, time and zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def duration(seconds: float) -> str:
    """A span in words."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
