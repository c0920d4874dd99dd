# SPDX-License-Identifier: Apache-2.0
"""How many inputs a fuzz test tries: PROBETOP_FUZZ says so, 100000 in the nightly run."""

from __future__ import annotations

import os


def inputs(default: int = 2000) -> int:
    """The number of inputs to try."""
    return int(os.environ.get("PROBETOP_FUZZ", default))
