# SPDX-License-Identifier: Apache-2.0
"""How many inputs tests that try random ones use: PROBETOP_FUZZ=100000 for a long run."""

from __future__ import annotations

import os

import pytest


def inputs(default: int = 2000) -> int:
    """The number in the environment, else `default`."""
    return int(os.environ.get("PROBETOP_FUZZ", default))


long = pytest.mark.timeout(0 if "PROBETOP_FUZZ" in os.environ else 900)
"""A limit for tests of many inputs; none for those whose number PROBETOP_FUZZ says."""
