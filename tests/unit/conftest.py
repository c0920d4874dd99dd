# SPDX-License-Identifier: Apache-2.0
"""Fixtures of several files, and what generated examples may take."""

from hypothesis import HealthCheck, settings

from tests.unit.broker_bench import bench as bench

# A busy machine may take any time for an example; pytest's own limit ends one that hangs.
settings.register_profile(
    "tests", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")
