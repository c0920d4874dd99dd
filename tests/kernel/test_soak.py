# SPDX-License-Identifier: Apache-2.0
"""The short forms of `./run.sh bench soak`: keys, or requests, for a while, and nothing grows."""

from __future__ import annotations

import shutil

import pytest

from bench import soak
from bench.flat import Limit, grown
from bench.held import LIMITS

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]

MINUTES, AGENT_MINUTES = 2.0, 1.2


def test_two_minutes_of_keys_and_storms_leave_everything_level() -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is missing: install the package gcc")
    said: list[str] = []
    series = soak.soak(MINUTES, said.append)
    assert not grown(series, LIMITS), "\n".join(said)


def test_a_minute_of_requests_leaves_the_agent_level() -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is missing: install the package gcc")
    said: list[str] = []
    series = soak.soak_agent(AGENT_MINUTES, said.append)
    # Its last minute, which snapshots are made of, fills meanwhile.
    limits = {**LIMITS, "large objects": Limit(3, "MB")}
    assert not grown(series, limits), "\n".join(said)
