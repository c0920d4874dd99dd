# SPDX-License-Identifier: Apache-2.0
"""What has a duration: the first call of a kind, and those who block or wait for long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.bpf.thread_places import PLACES, sets_of_places
from probes.core import kernel
from probes.core.delta import histogram_delta
from probes.core.frame import Filters
from probes.core.syscall_names import name_of
from probes.latency.view import latency_view
from probes.syscalls.probe import SyscallProbe
from probes.syscalls.sample import SyscallSample
from probes.syscalls.view import syscall_view
from tests.kernel.harness import Live, Work
from tests.kernel.timing import Timing, rows

pytestmark = pytest.mark.kernel

NUMBER = name_of(500, False, kernel.arch() or "")
"""A call that has no name yet, and that nobody but the workload makes."""
PID_MAX = Path("/proc/sys/kernel/pid_max")
FAR = 4_194_304
"""As far as thread numbers go."""
TIMED = {"syscalls": {"latency": True}}


def timed(before: SyscallSample, after: SyscallSample, name: str) -> tuple[int, int]:
    """Durations of a call between two Samples, and their sum in ns."""
    assert after.latency is not None
    old = (before.latency or {}).get(name)
    spent = histogram_delta(old, after.latency[name]) if name in after.latency else None
    return (spent.n, spent.total) if spent is not None else (0, 0)


def test_the_first_call_of_a_kind_has_a_duration(calls: Path) -> None:
    with (
        Work(calls, "number", "1") as work,
        Live("syscalls", options=TIMED, filters=Filters(pid=work.pid)) as live,
    ):
        before = live.syscalls()
        work.work()
        after = live.syscalls()
    assert timed(before, after, NUMBER)[0] == 1
    view = syscall_view(before, after, 1)
    # The read for whose end the workload waited had begun before the probe did.
    assert view.untimed == 1
    fields = SyscallProbe.contract(before, after, 1)
    assert fields["untimed"] == 1


def test_without_durations_nothing_is_untimed(calls: Path) -> None:
    with Live("syscalls") as live, Work(calls, "number", "1") as work:
        before = live.syscalls()
        work.work()
        assert SyscallProbe.contract(before, live.syscalls(), 1)["untimed"] is None


@pytest.fixture
def far() -> Iterator[int]:
    """Thread numbers go so far that not every one has a place; how many sets there are."""
    before = PID_MAX.read_text()
    PID_MAX.write_text(str(FAR))
    yield sets_of_places()
    PID_MAX.write_text(before)


@pytest.mark.parametrize(("waiting", "step"), [(1, 65536), (PLACES - 1, 0), (PLACES + 2, 0)])
def test_who_waits_for_long_keeps_its_start(
    program: Callable[[str], Path], far: int, waiting: int, step: int
) -> None:
    """Threads whose numbers lead to the same set: the last that come are not timed."""
    first = 3_000_000
    with (
        Work(program("tids"), str(first), str(step or far), str(waiting)) as work,
        Live("syscalls", options=TIMED, filters=Filters(comm="tids")) as live,
    ):
        before = live.syscalls()
        (spent,) = work.work()
        after = live.syscalls()
    n, total = timed(before, after, "recvfrom")
    kept = min(waiting, PLACES)
    assert n == kept
    assert 0.9 * spent * kept / waiting <= total <= spent
    view = syscall_view(before, after, 1)
    called = 0 if waiting < PLACES else 1001
    # The read for whose end the workload waited had begun before the probe did.
    assert view.untimed == waiting - kept + called + 1


def test_who_is_off_the_cpu_for_long_keeps_its_start(
    program: Callable[[str], Path], far: int
) -> None:
    """Another thread, whose number leads to the same set, leaves its CPU meanwhile."""
    first = 3_000_000
    with (
        Work(program("tids"), str(first), str(max(far, 65536)), "1") as work,
        Timing("offcpu", filters=Filters(comm="tids")) as live,
    ):
        before = live.latency()
        (spent,) = work.work()
        after = live.latency()
    found = {row.pid: row for row in latency_view(before, after, 1).behind("offcpu")}
    total = found[first].total
    assert total is not None
    assert 0.9 * spent <= total <= spent
    assert rows(before, after)["offcpu"].missed == 0
