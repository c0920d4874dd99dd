# SPDX-License-Identifier: Apache-2.0
"""Executions joined with exits."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.execlog import ExecLog, join_args, short_cgroup
from probes.samples import ExecEvent, ExitEvent

HEX = "0123456789abcdef" * 4


def execution(pid: int, time: float = 1.0, ret: int = 0, *args: str) -> ExecEvent:
    return ExecEvent(
        time=time,
        pid=pid,
        ppid=1,
        uid=0,
        comm="prog",
        parent="init",
        args=args or ("prog",),
        truncated=False,
        ret=ret,
        cgroup="/",
    )


def ending(pid: int, time: float = 2.0, code: int = 0, signal: int = 0) -> ExitEvent:
    return ExitEvent(
        time=time, pid=pid, comm="prog", exit_code=code, signal=signal, duration=5_000_000
    )


def test_an_exit_completes_the_row_of_its_process() -> None:
    log = ExecLog()
    log.add([execution(7), execution(8), ending(7, code=3)])
    first, second = log.rows
    assert (first.outcome(), first.duration, first.ended) == ("3", 5_000_000, 2.0)
    assert (second.outcome(), second.duration, second.ended) == ("-", None, None)


def test_a_pid_that_is_used_again_gets_a_row_of_its_own() -> None:
    log = ExecLog()
    log.add([execution(7), ending(7, code=1), execution(7, 3.0), ending(7, 4.0, signal=9)])
    assert [row.outcome() for row in log.rows] == ["1", "SIGKILL"]


def test_a_program_that_executes_another_is_replaced() -> None:
    log = ExecLog()
    log.add([execution(7, 1.0), execution(7, 1.5), ending(7)])
    assert [row.outcome() for row in log.rows] == ["exec", "0"]
    assert log.rows[0].duration == 500_000_000


def test_a_failed_attempt_leaves_the_process_what_it_was() -> None:
    log = ExecLog()
    log.add([execution(7), execution(7, 1.5, -2), ending(7, code=127)])
    assert [row.outcome() for row in log.rows] == ["127", "ENOENT"]
    assert [row.failed for row in log.rows] == [False, True]


def test_an_unknown_process_is_a_row_only_when_it_was_killed() -> None:
    log = ExecLog()
    log.add([ending(7), ending(8, code=1), ending(9, signal=11)])
    (row,) = log.rows
    assert (row.pid, row.outcome(), row.args, row.uid) == (9, "SIGSEGV", None, None)
    assert row.command == "[prog]"


def test_the_log_is_bounded_and_keeps_the_newest() -> None:
    log = ExecLog(limit=3)
    log.add([execution(pid) for pid in range(1, 11)])
    assert [row.pid for row in log.rows] == [8, 9, 10]
    log.add([ending(1, signal=9), ending(9, code=4)])
    # Process 1's row has gone, so its violent end is news; process 9's was completed.
    assert [(row.pid, row.outcome()) for row in log.rows] == [
        (9, "4"),
        (10, "-"),
        (1, "SIGKILL"),
    ]


@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=12), min_size=1))
def test_joined_arguments_are_those_again_for_a_shell(args: list[str]) -> None:
    assert shlex.split(join_args(args)) == args


def test_an_apostrophe_stays_readable() -> None:
    assert join_args(["echo", "it's done", ""]) == """echo "it's done" ''"""


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (None, "-"),
        ("/", "/"),
        ("/system.slice/nginx.service", "nginx"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1"),
        (f"/system.slice/docker-{HEX}.scope", "docker:0123456789ab"),
        (f"/docker/{HEX}", "docker:0123456789ab"),
        (f"/machine.slice/libpod-{HEX}.scope/container", "podman:0123456789ab"),
        (
            "/kubepods.slice/kubepods-burstable.slice/"
            f"kubepods-burstable-pod1a2b3c4d_0001_4000_8000_000000000001.slice/cri-containerd-{HEX}.scope",
            "pod:0123456789ab",
        ),
        ("/kubepods/besteffort/pod1a2b3c4d-0001-4000-8000-000000000001", "pod:1a2b3c4d"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-vim.scope", "user@1000"),
        ("/lxc/web", "web"),
    ],
)
def test_short_names_of_control_groups(path: str | None, name: str) -> None:
    assert short_cgroup(path) == name
