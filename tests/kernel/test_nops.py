# SPDX-License-Identifier: Apache-2.0
"""Probes at 5-byte nops, of which some kernels make calls, leave programs as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from probes.core import kernel
from probes.uprobes import harm_trials
from tests.kernel.harness import Work
from tests.kernel.timing import Timing, since

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]
N = 200


@pytest.mark.parametrize("force", [False, True])
def test_a_child_of_fork_goes_on(program: Program, force: bool) -> None:
    path = program("nops")
    name = f"uprobe:{path}:begins"
    with Timing(options={"latency": {"force": force, "targets": [name]}}) as live:
        with Work(path, str(N)) as work:
            before = live.latency()
            assert work.work() == [0, 0]
        after = live.latency()
    found, missed, overflow = since(before, after, name)
    assert (found.n, missed, overflow) == (2 * N, 0, 0)


@pytest.mark.skipif(kernel.arch() != "x86_64", reason="no nop becomes a call there")
def test_a_nop_in_a_function_is_refused_where_it_would_become_a_call(program: Program) -> None:
    path = program("nops")
    inside = f"uprobe:{path}:keeps+0x9"
    with Timing(inside) as live:
        (target,) = live.decided(inside)
        if harm_trials.turns_nops_into_calls():
            assert target.state == "failed"
            assert "is a 5-byte nop, which this kernel makes a call of" in (target.why or "")
        else:
            assert target.state == "on"
        with Work(path, str(N)) as work:
            assert work.work() == [0, 0]
