# SPDX-License-Identifier: Apache-2.0
"""Tests of other kernels; guest/ and guest_pmu/ run in one, where PROBETOP_GUEST is 1."""

from __future__ import annotations

import os

import pytest

collect_ignore = [] if os.environ.get("PROBETOP_GUEST") == "1" else ["guest", "guest_pmu"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what each guest's own summary was, for pytest counts a guest as one test."""
    passed = terminalreporter.getreports("passed")
    lines = [
        value for report in passed for name, value in report.user_properties if name == "guest"
    ]
    if lines:
        terminalreporter.section("guests")
    for line in lines:
        terminalreporter.line(str(line))
