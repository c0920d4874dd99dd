# SPDX-License-Identifier: Apache-2.0
"""Situations in which tools of this kind were reported to be wrong."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.core.frame import Filters
from probes.core.process_keys import pid_of
from probes.execs.sample import ExecEvent
from tests.kernel.counting import Counting
from tests.kernel.harness import Live

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]
BURNERS = """
import os, time
for _ in range(20):
    if not os.fork():
        while time.process_time() < 0.1:
            pass
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize("way", ["fexecve", "execveat"])
def test_a_program_in_memory_only_has_its_name_as_its_path(program: Program, way: str) -> None:
    with Live("execs") as live:
        process = subprocess.Popen([program("memfd"), way])
        assert process.wait(30) == 0
        live.settled()
        found = [e for e in live.events() if isinstance(e, ExecEvent) and e.pid == process.pid]
    assert [event.ret for event in found] == [0, 0]
    assert found[1].args == ("another name", "an argument")
    assert (found[1].path, found[1].path_truncated) == ("/memfd:in memory", False)


def test_a_file_of_such_a_name_is_none_in_memory(program: Program, tmp_path: Path) -> None:
    copy = tmp_path / "memfd:false"
    copy.write_bytes(program("tiny").read_bytes())
    copy.chmod(0o755)
    with Live("execs") as live, copy.open("rb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", f"import os; os.execve({file.fileno()}, ['a'], {{}})"],
            pass_fds=[file.fileno()],
        )
        process.wait(30)
        live.settled()
        found = [e for e in live.events() if isinstance(e, ExecEvent) and e.pid == process.pid]
    assert (found[-1].path or "").startswith("/dev/fd/")


def test_cpu_time_of_programs_that_live_for_a_moment_is_in_the_sums() -> None:
    """Twenty of a tenth of a second, one after the other: what they used is what is charged."""
    with Counting(filters=Filters(comm="burners")) as live:
        before = live.pmc()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        renamed = "open('/proc/self/comm', 'w').write('burners')\n"
        subprocess.run([sys.executable, "-c", renamed + BURNERS], check=True)
        after = live.pmc()
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    real = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    found = [
        times.clock - (before.tasks[number].clock if number in before.tasks else 0)
        for number, times in after.tasks.items()
    ]
    assert len({pid_of(number) for number in after.tasks}) >= 20
    # The start of the first one, before it had its name, is in the kernel's account only.
    assert 2.0e9 <= sum(found) <= 1.02e9 * real
