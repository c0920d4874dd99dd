# SPDX-License-Identifier: Apache-2.0
"""What tests in guests stand on; PROBETOP_WORKLOADS names the directory of programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel import harness
from tests.kernel.harness import Live
from tests.vm import workloads

pytest.register_assert_rewrite("tests.vm.guest.spans")

# Emulated machines are slow, and slower while the real one is busy.
harness.DEADLINE = 300.0


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A workload by the name of its source; outside of a guest it is compiled here."""
    given = os.environ.get("PROBETOP_WORKLOADS")
    directory = Path(given) if given else tmp_path_factory.mktemp("workloads")
    if not given:
        workloads.build(platform.machine(), directory)

    def built(name: str) -> Path:
        assert (directory / name).is_file()
        return directory / name

    return built


@pytest.fixture(scope="session")
def calls(program: Callable[[str], Path]) -> Path:
    """The workload that makes system calls."""
    return program("calls")


@pytest.fixture(scope="session")
def live() -> Iterator[Live]:
    """System calls with their latency, and executions: loaded once, for it takes long."""
    options = {"syscalls": {"latency": True}}
    with Live("syscalls", "execs", options=options) as source:
        yield source
