# SPDX-License-Identifier: Apache-2.0
"""System calls that signals interrupt: what the program gets to see is what is counted."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.delta import count_delta, histogram_delta, int_delta
from probes.core.frame import Filters
from probes.core.sample import Counts
from probes.syscalls.view import CallRow, syscall_view
from tests.kernel.harness import Live, Work, eventually, status_of

pytestmark = pytest.mark.kernel

POLL = "poll" if kernel.arch() == "x86_64" else "ppoll"
CALLS = ("recvfrom", "clock_nanosleep", "futex", "futex-timeout", POLL)
KERNEL_ONLY = {"ERESTARTSYS", "ERESTARTNOINTR", "ERESTARTNOHAND", "ERESTART_RESTARTBLOCK"}


@pytest.fixture(scope="module")
def signals(program: Callable[[str], Path]) -> Path:
    """The workload whose calls are interrupted."""
    return program("signals")


@pytest.fixture(scope="module", params=[False, True], ids=["counted", "timed"])
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    """The probe on that workload alone, in both of its variants."""
    with Live(
        "syscalls",
        options={"syscalls": {"latency": request.param}},
        filters=Filters(comm="signals"),
    ) as source:
        yield source


class Seen:
    """What was counted of the workload while it worked, and what it says itself."""

    def __init__(
        self, live: Live, path: Path, *words: str, meanwhile: Callable[[int], None] | None = None
    ) -> None:
        with Work(path, *words) as work:
            before = live.syscalls()
            work.go()
            if meanwhile is not None:
                meanwhile(work.pid)
            self.made, self.interrupted, self.failed, self.spent = work.done()
            after = live.syscalls()
        self.before, self.after = before, after
        self.counts = count_delta(before.calls, after.calls)
        self.errnos = int_delta(before.errnos, after.errnos)
        self.view = syscall_view(before, after, 1)

    def row(self, name: str) -> CallRow:
        return next(row for row in self.view.calls if row.name == name)

    def timed(self, name: str) -> tuple[int, int] | None:
        """Durations of a call and their sum in ns; None where none are taken."""
        if self.after.latency is None:
            return None
        old = (self.before.latency or {}).get(name)
        spent = histogram_delta(old, self.after.latency[name])
        return spent.n, spent.total

    def check(self, name: str) -> None:
        """One call of the program is one, with its own error, and for as long as it took."""
        assert self.counts[name] == Counts(self.made, self.interrupted + self.failed)
        assert self.errnos.get((name, "EINTR"), 0) == self.interrupted
        assert not KERNEL_ONLY & {errno for _, errno in self.errnos}
        assert "restart_syscall" not in self.counts
        timed = self.timed(name)
        if timed is not None:
            n, total = timed
            assert n == self.made
            assert 0.9 * self.spent <= total <= self.spent


def stop_and_continue(pid: int) -> None:
    """Stop a process that waits, let it go on, three times."""
    for _ in range(3):
        eventually("it waits", lambda: status_of(pid)["State"][0] == "S")
        os.kill(pid, signal.SIGSTOP)
        eventually("it is stopped", lambda: status_of(pid)["State"][0] == "T")
        os.kill(pid, signal.SIGCONT)


def test_a_return_from_a_handler_is_no_error(live: Live, signals: Path) -> None:
    """Between two instructions a register holds -2, which is no call's ENOENT."""
    seen = Seen(live, signals, "compute", "-", "100")
    assert [name for name, n in seen.counts.items() if n.errors] == []
    assert seen.counts["unknown"].n >= 100


@pytest.mark.parametrize("call", CALLS)
def test_handlers_end_calls_with_eintr(live: Live, signals: Path, call: str) -> None:
    seen = Seen(live, signals, "interrupt", call, "40")
    assert seen.interrupted >= 20
    seen.check(call.partition("-")[0])


@pytest.mark.parametrize("call", CALLS)
def test_what_handlers_restart_is_one_call(live: Live, signals: Path, call: str) -> None:
    """With SA_RESTART some calls go on, and others end all the same."""
    seen = Seen(live, signals, "restart", call, "40")
    assert bool(seen.interrupted) == (call not in ("recvfrom", "futex"))
    seen.check(call.partition("-")[0])


@pytest.mark.parametrize("how", ["nested", "deeper"])
def test_calls_of_the_handler_are_calls_of_their_own(live: Live, signals: Path, how: str) -> None:
    """The handler makes the call that it interrupted: both are counted and timed, each as one.

    Deeper, another signal interrupts the handler's own call.
    """
    seen = Seen(live, signals, how, "recvfrom", "30")
    assert seen.made >= 60
    seen.check("recvfrom")


@pytest.mark.parametrize("call", [call for call in CALLS if call != "recvfrom" and call != "futex"])
def test_what_is_stopped_and_continued_is_one_call(live: Live, signals: Path, call: str) -> None:
    """The kernel goes on by itself, by restart_syscall or by the same number."""
    seen = Seen(live, signals, "stop", call, "1", meanwhile=stop_and_continue)
    assert seen.made == 1
    seen.check(call.partition("-")[0])


def test_what_a_handler_jumps_out_of_is_no_longer_timed(live: Live, signals: Path) -> None:
    """What the handler never returned to never ends; the next call begins by itself."""
    seen = Seen(live, signals, "jump", "-", "20")
    timed = seen.timed("recvfrom")
    assert seen.counts["recvfrom"].n >= 20
    if timed is not None:
        assert timed[1] <= 10 * seen.spent + 20_000_000


@pytest.mark.parametrize(("how", "n"), [("trap", 50), ("kill", 5)])
def test_what_seccomp_answers_by_a_signal_is_a_failure(
    live: Live, signals: Path, how: str, n: int
) -> None:
    seen = Seen(live, signals, how, "-", str(n))
    assert seen.counts["getpgid"] == Counts(n, n)
    assert seen.errnos["getpgid", "SIGSYS"] == n
