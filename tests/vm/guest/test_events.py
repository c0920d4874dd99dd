# SPDX-License-Identifier: Apache-2.0
"""Static probes, tracepoints and presets: the tests of real machines, and some of their own."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from probes.core.frame import NO_FILTERS, Filters
from tests.kernel.harness import Work
from tests.kernel.test_latency_events import (
    COLLECTIONS,
    PYTHON,
    assert_collections,
    live,
    observe,
    test_a_guarded_probe_is_on_while_somebody_listens,
    test_calls_by_three_ways,
    test_collections_of_python,
    test_presets_see_something,
    test_sleeps_are_as_long_as_the_program_says,
    test_two_hogs_on_one_cpu_wait_for_each_other,
)
from tests.kernel.timing import Timing, by_pid, since
from tests.vm.guest.spans import CALLS, Program, assert_between, spans

__all__ = [
    "live",
    "test_a_guarded_probe_is_on_while_somebody_listens",
    "test_calls_by_three_ways",
    "test_collections_of_python",
    "test_presets_see_something",
    "test_sleeps_are_as_long_as_the_program_says",
    "test_two_hogs_on_one_cpu_wait_for_each_other",
]
pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkout is read-only in guests with another root."""
    monkeypatch.chdir(tmp_path)


def test_static_probes_count_and_pair(live: Timing, program: Program, tmp_path: Path) -> None:
    path, record = program("timed"), tmp_path / "record"
    with Work(path, "calls", str(CALLS), record) as work:
        before, after, _ = observe(live, work)
    single = f"usdt:{path}:timed:start"
    pair = f"{single},usdt:{path}:timed:end"
    for spec in (single, pair):
        assert by_pid(before, after, spec) == {work.pid: CALLS}
    found, missed, overflow = since(before, after, pair)
    assert (missed, overflow) == (0, 0)
    assert_between(found, spans(record))


def test_a_running_interpreter_by_its_name(live: Timing, tmp_path: Path) -> None:
    """PATH does not lead to it: where it is, only the mappings of its process tell."""
    binary = shutil.copy(PYTHON, tmp_path / "hidden-python")
    half = "usdt:hidden-python:python:gc__"
    spec, n = f"{half}start,{half}done", 50
    environment = {**os.environ, "PYTHONHOME": sys.base_prefix}
    with Work(binary, "-c", COLLECTIONS, str(n), env=environment) as work:
        live.source.set_filters(Filters(pid=work.pid))
        live.add(spec)
        before, after, spent = observe(live, work)
        live.source.set_filters(NO_FILTERS)
        live.remove(spec)
    found, missed, overflow = since(before, after, spec)
    assert (found.n, missed, overflow) == (n, 0, 0)
    assert by_pid(before, after, spec) == {work.pid: n}
    assert_collections(found, spent)
