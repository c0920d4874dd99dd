# SPDX-License-Identifier: Apache-2.0
"""A plugin that runs tests of a real machine again when they fail, here and in guests."""

from __future__ import annotations

import pytest
from _pytest.runner import runtestprotocol

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
    """Tells what had to be tried again."""
    for line in retried:
        terminalreporter.line(f"tried again: {line}", yellow=True)
