# SPDX-License-Identifier: Apache-2.0
"""Boots other kernels and runs the tests of guest/ in each; `./test.sh --vm` asks for it.

On a machine with hardware counters those of guest_pmu/ are run instead.

PROBETOP_VM holds the names of kernels ("default", "turn", "all", or as in tests.vm.kernels).
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import STRICT
from tests.vm import kernels, machine, workloads
from tests.vm.kernels import Kernel, Unavailable

ASKED = os.environ.get("PROBETOP_VM", "").split()
LIMIT = 1200.0
"""Wall-clock seconds for a guest's tests; about 170 on an idle machine, more beside other tests."""

PYTEST = ("-m", "pytest", "-c", "tests/vm/guest/guest.ini")

pytestmark = pytest.mark.vm


def run_tests(kernel: Kernel, work: Path) -> machine.Run:
    """Run the guest tests on a kernel; `work` is an empty directory that it may fill."""
    boot = kernels.prepare(kernel)
    work.chmod(0o755)
    workloads.build(kernels.MACHINES[kernel.arch], work)
    # Only what is pure Python is used from here on other machines: pytest and what it needs.
    library = Path(sysconfig.get_path("purelib"))
    packages = workloads.packages(kernels.MACHINES[kernel.arch], work)
    paths = [machine.CHECKOUT, *([packages] if packages else []), library]
    environment = {
        "CI": "1",
        "PROBETOP_GUEST": "1",
        "PROBETOP_GUEST_RELEASE": boot.release,
        "PROBETOP_LOADER_TIMEOUT": "240",
        "PROBETOP_WORKLOADS": str(work),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": ":".join(map(str, paths)),
    }
    command = [boot.python, *PYTEST, f"tests/vm/{'guest_pmu' if kernel.pmu else 'guest'}"]
    return machine.run(boot, command, environment=environment, read=[library, work], limit=LIMIT)


@pytest.mark.timeout(LIMIT + 600)  # with downloads, where the cache has no kernel yet
@pytest.mark.parametrize("name", [k.name for k in kernels.choose(ASKED or ["default"])])
def test_guest(name: str, record_property: Callable[[str, object], None]) -> None:
    if not ASKED:
        pytest.skip("other kernels: ./test.sh --vm")
    (kernel,) = kernels.choose([name])
    with tempfile.TemporaryDirectory(prefix="probetop-workloads-") as work:
        try:
            done = run_tests(kernel, Path(work))
        except Unavailable as error:
            if STRICT:
                pytest.fail(f"guests must run in CI, but {error}")
            pytest.skip(str(error))
    assert done.status == 0, f"status {done.status} on {name}:\n{done.report()}"
    lines = done.output.strip().splitlines()
    summary = lines[-1].strip("= ")
    record_property("guest", f"{name}: {summary}; {done.seconds:.0f} s with its boot")
