# SPDX-License-Identifier: Apache-2.0
"""Fixtures of several files."""

from tests.unit.broker_bench import bench as bench
