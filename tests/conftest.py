# SPDX-License-Identifier: Apache-2.0
"""Markers: which tests this machine can run, and when a skip is a failure."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from _pytest.runner import runtestprotocol

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


TRIES = {"kernel": 3, "vm": 2}
"""How often a test of a real machine is tried: others run on it too, and take its CPUs.

A bug fails every time; what passed only on a further try is listed at the end.
"""
retried: list[str] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Runs tests of a real machine again when they fail."""
    tries = max((n for mark, n in TRIES.items() if item.get_closest_marker(mark)), default=1)
    if tries == 1 or not isinstance(item, pytest.Function):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(1, tries + 1):
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if attempt == tries or not any(report.failed for report in reports):
            break
        retried.append(f"{item.nodeid}: {_first_line(reports)}")
        item._initrequest()
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _first_line(reports: list[pytest.TestReport]) -> str:
    text = next((report.longreprtext for report in reports if report.failed), "")
    complaint = [line for line in text.splitlines() if line.startswith("E ")]
    return complaint[0][2:].strip() if complaint else text[:100]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tells what had to be tried again; repeats which static checks of test.sh failed."""
    for line in retried:
        terminalreporter.line(f"tried again: {line}", yellow=True)
    failed = os.environ.get("PROBETOP_STATIC_FAILED")
    if failed:
        terminalreporter.section("static checks failed", red=True)
        terminalreporter.line(f"{failed}: see above the tests", red=True)
