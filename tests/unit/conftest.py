# SPDX-License-Identifier: Apache-2.0
"""Fixtures of several files, and what generated examples may take."""

import pytest
from hypothesis import HealthCheck, settings

from tests.unit.broker_bench import bench as bench

# A busy machine may take any time for an example; pytest's own limit ends one that hangs.
settings.register_profile(
    "tests", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _processes_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents find a /proc without hidepid, however that of this machine is mounted."""
    monkeypatch.setattr("tui.agent.service.shows_processes", lambda: True)
