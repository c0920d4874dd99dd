# SPDX-License-Identifier: Apache-2.0
"""Markers: which tests this machine can run, and when a skip is a failure."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

STRICT = os.environ.get("CI", "").lower() in ("1", "true", "yes")
"""In CI a kernel test that cannot run has failed: otherwise green would mean nothing."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips `kernel` tests without root."""
    if item.get_closest_marker("kernel") and os.geteuid() != 0:
        pytest.skip("loads BPF programs, which needs root")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns a skipped `kernel` test into a failed one in CI.

    A test marked `machine` asks for what not every machine has (a hardware
    PMU, kprobes) and may be skipped there too.
    """
    report = yield
    forgiven = item.get_closest_marker("machine") or not item.get_closest_marker("kernel")
    if STRICT and report.skipped and not forgiven and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"kernel tests must run in CI, but: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Repeats which static checks of test.sh failed."""
    failed = os.environ.get("PROBETOP_STATIC_FAILED")
    if failed:
        terminalreporter.section("static checks failed", red=True)
        terminalreporter.line(f"{failed}: see above the tests", red=True)
