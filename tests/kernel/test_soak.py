# SPDX-License-Identifier: Apache-2.0
"""The short form of `./run.sh bench soak`: two minutes of keys, and nothing grows."""

from __future__ import annotations

import shutil

import pytest

from bench import soak
from bench.flat import grown
from bench.held import LIMITS

pytestmark = pytest.mark.kernel

MINUTES = 2.0


def test_two_minutes_of_keys_and_storms_leave_everything_level() -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is missing: install the package gcc")
    said: list[str] = []
    series = soak.soak(MINUTES, said.append)
    assert not grown(series, LIMITS), "\n".join(said)
