# SPDX-License-Identifier: Apache-2.0
"""Which tests this machine can run, when a skip is a failure, and what no run leaves behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests import not_in_ci
from tests.leftovers import Leftovers, adopt_orphans
from tests.paths import ROOT
from tests.summary import Counts

STRICT = os.environ.get("CI", "").lower() in ("1", "true", "yes")
"""In CI a test that cannot run has failed: otherwise green would mean nothing."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips `kernel` tests without root."""
    if item.get_closest_marker("kernel") and os.geteuid() != 0:
        pytest.skip("loads BPF programs, which needs root")


def name_of(item: pytest.Item) -> str:
    """A test's path below the checkout and its name without parameters."""
    name = getattr(item, "originalname", None) or item.name
    return f"{item.path.relative_to(ROOT)}::{name}" if item.path.is_relative_to(ROOT) else name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns a skipped test into a failed one in CI, unless tests/not_in_ci.py names it."""
    report = yield
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        allowed = not_in_ci.ALLOWED.get(name_of(item))
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        if allowed is None:
            report.outcome = "failed"
            report.longrepr = f"tests must run in CI, but: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def signals_are_heard() -> None:
    """Lets the programs under test get signals that this process's parent ignores.

    An ignored signal stays so in children (a script's background job, nohup), and a handler does
    not. The handler does nothing, so that the run itself goes on as before.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fails the run when a process or BPF program of its own outlives the last test."""
    adopt_orphans()
    before = Leftovers()
    yield
    before.check()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Repeats which static checks of test.sh failed, and keeps the counts for its last line."""
    path = os.environ.get("PROBETOP_COUNTS")
    if path:
        stats = terminalreporter.stats.items()
        counts: Counts = {name: len(reports) for name, reports in stats if name}
        Path(path).write_text(json.dumps(counts))
    failed = os.environ.get("PROBETOP_STATIC_FAILED")
    if failed:
        terminalreporter.section("static checks failed", red=True)
        terminalreporter.line(f"{failed}: see above the tests", red=True)
