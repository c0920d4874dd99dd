# SPDX-License-Identifier: Apache-2.0
"""Executions joined with exits."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.execs import process_log
from probes.execs.process_log import ExecLog, join_args, short_cgroup
from probes.execs.sample import ExecEvent, ExitEvent

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


def test_a_row_has_both_users_and_says_that_its_path_is_cut() -> None:
    log = ExecLog()
    log.add([replace(execution(7), euid=4, path_truncated=True)])
    (row,) = log.rows
    assert (row.uid, row.euid, row.path_truncated) == (0, 4, True)


def test_a_pid_that_is_used_again_gets_a_row_of_its_own() -> None:
    log = ExecLog()
    log.add([execution(7), ending(7, code=1), execution(7, 3.0), ending(7, 4.0, signal=9)])
    assert [row.outcome() for row in log.rows] == ["1", "SIGKILL"]


def test_the_end_of_another_process_with_that_pid_is_not_joined() -> None:
    log = ExecLog()
    log.add([
        replace(execution(7), started=5),
        replace(ending(7, 2.0, code=3), started=6),
        replace(execution(8), started=5),
        replace(ending(8, 2.0, signal=9), started=6),
    ])  # fmt: skip
    lost, other, killed = log.rows
    assert (lost.outcome(), lost.ended, lost.duration) == ("-", 2.0, None)
    assert (other.outcome(), other.ended) == ("-", 2.0)
    assert (killed.outcome(), killed.ppid, killed.started) == ("SIGKILL", None, 6)


def test_an_execution_by_another_process_with_that_pid_replaces_nothing() -> None:
    log = ExecLog()
    log.add([replace(execution(7), started=5), replace(execution(7, 3.0), started=6)])
    first, second = log.rows
    assert (first.replaced, first.ended, first.duration) == (False, 3.0, None)
    assert second.outcome() == "-"


def test_a_search_is_not_gone_on_with_by_another_process_with_that_pid() -> None:
    log = ExecLog()
    attempts = [
        replace(execution(7, time, -2), started=start) for time, start in ((1.0, 5), (1.1, 6))
    ]
    log.add([*attempts, replace(execution(7, 1.2), started=7)])
    assert [row.outcome() for row in log.rows] == ["ENOENT", "ENOENT", "-"]


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


def searching(
    pid: int, *paths: str, ret: int = -2, args: tuple[str, ...] = ("sh", "-c")
) -> list[ExecEvent]:
    return [
        replace(execution(pid, 1.0 + at / 1e4, ret, *args), path=path)
        for at, path in enumerate(paths)
    ]


def found(pid: int, path: str, *args: str, time: float = 1.1) -> ExecEvent:
    return replace(execution(pid, time, 0, *args), path=path)


def test_a_search_in_path_that_finds_is_one_row() -> None:
    log = ExecLog()
    tries = searching(7, "/a/sh", "/b/sh", "/c/sh")
    log.add([tries[0], *searching(8, "/a/sh"), *tries[1:]], now=1.2)
    row = log.rows[0]
    assert (row.pid, row.tries, row.path, row.outcome()) == (7, 3, "/c/sh", "ENOENT")
    log.add([found(7, "/bin/sh", "sh", "-c"), ending(7, 1.3, code=4)], now=9.0)
    assert (row.tries, row.path, row.time, row.outcome()) == (3, "/bin/sh", 1.1, "4")
    assert [one.pid for one in log.rows] == [7, 8]
    # Process 8 went on searching for nothing; process 7 found what it wanted.
    assert log.failed == 1


def test_a_search_that_finds_nothing_is_one_failure_once_it_is_over() -> None:
    log = ExecLog()
    log.add(searching(7, "/a/sh", "/b/sh"), now=1.01)
    assert log.failed == 0
    log.add([ending(7, 1.2, code=127)], now=1.2)
    assert log.failed == 1
    log.add(searching(8, "/a/sh", "/b/sh"), now=1.9)
    assert log.failed == 1
    log.add([], now=2.1)
    assert log.failed == 2
    assert [(row.tries, row.failed) for row in log.rows] == [(2, True), (2, True)]


def test_a_file_that_may_not_be_run_says_more_than_one_that_is_not_there() -> None:
    log = ExecLog()
    first, last = searching(7, "/a/sh", "/c/sh")
    (denied,) = searching(7, "/b/sh", ret=-13)
    log.add([first, replace(denied, time=1.00005), last])
    (row,) = log.rows
    assert (row.outcome(), row.path, row.tries) == ("EACCES", "/b/sh", 3)


def test_other_arguments_and_another_process_are_rows_of_their_own() -> None:
    log = ExecLog()
    log.add(searching(7, "/a/sh"))
    log.add(searching(7, "/a/ls", args=("ls",)))
    log.add([found(7, "/bin/id", "id")], now=1.2)
    assert [row.outcome() for row in log.rows] == ["ENOENT"] * 2 + ["-"]
    assert log.rows[-1].tries == 0
    assert log.failed == 2


def test_who_tries_without_end_has_failed_each_second() -> None:
    log = ExecLog()
    (again,) = searching(7, "./gone")
    for at in range(80):
        log.add([replace(again, time=1 + at / 8)], now=1 + at / 8)
    assert log.failed == 9
    assert [row.tries for row in log.rows] == [8] * 10


def test_an_attempt_long_after_the_last_is_no_search() -> None:
    log = ExecLog()
    log.add([*searching(7, "/a/sh"), found(7, "/bin/sh", "sh", "-c", time=3.0)])
    assert [(row.outcome(), row.tries) for row in log.rows] == [("ENOENT", 1), ("-", 0)]
    assert log.failed == 1


@pytest.mark.parametrize(
    ("tried", "cut", "path", "args"),
    [
        (("tool", "-x", "y"), False, "/b/tool", ("/bin/sh", "/b/tool", "-x", "y")),
        (("tool",), False, "/b/tool", ("/usr/bin/env", "python3", "/b/tool")),
        (("tool", "a" * 255), True, "/b/tool", ("tool", "a" * 300, "b")),
        (("tool", "a" * 255), True, "/b/tool", ("/bin/sh", "/b/tool", "a" * 300, "b")),
    ],
)
def test_scripts_and_long_arguments_are_found_too(
    tried: tuple[str, ...], cut: bool, path: str, args: tuple[str, ...]
) -> None:
    log = ExecLog()
    tries = [replace(event, truncated=cut) for event in searching(7, "/a/tool", args=tried)]
    log.add([*tries, found(7, path, *args)], now=9.0)
    (row,) = log.rows
    assert (row.args, row.path, row.tries, row.truncated) == (args, path, 1, False)
    assert log.failed == 0


def test_another_program_is_not_what_was_searched_for() -> None:
    log = ExecLog()
    log.add([*searching(7, "/a/sh"), found(7, "/bin/dash", "sh", "-c")], now=1.1)
    assert [row.outcome() for row in log.rows] == ["ENOENT", "-"]


def test_open_searches_are_bounded_and_none_is_forgotten() -> None:
    log = ExecLog()
    for pid in range(1, process_log.MAX_SEARCHES + 11):
        log.add(searching(pid, "/a/sh"), now=1.0)
    assert log.failed == 10
    log.add([], now=2.5)
    assert log.failed == len(log.rows) == process_log.MAX_SEARCHES + 10


def test_a_search_whose_row_has_gone_ends_with_it() -> None:
    log = ExecLog(limit=2)
    log.add([*searching(7, "/a/sh"), execution(8), execution(9)])
    log.add([found(7, "/b/sh", "sh", "-c")], now=1.2)
    assert [(row.pid, row.tries) for row in log.rows] == [(9, 0), (7, 0)]
    assert log.failed == 1


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
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-vim.scope", "app-vim"),
        ("/lxc/web", "web"),
    ],
)
def test_short_names_of_control_groups(path: str | None, name: str) -> None:
    assert short_cgroup(path) == name
