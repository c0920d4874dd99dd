# SPDX-License-Identifier: Apache-2.0
"""The search for what can be traced, asked as the dashboard asks it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from probes.source import Found
from probes.symbols.target_spec import parse
from tests.kernel.harness import Live, Work, eventually, is_running
from tests.kernel.timing import PATHS, Timing

pytestmark = [pytest.mark.kernel, pytest.mark.concurrent]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """Nothing is attached: searching needs no probe."""
    with Live(paths=PATHS) as source:
        yield source


def ask(live: Live, query: str) -> list[Found]:
    """What is found."""
    answers: list[Sequence[Found]] = []
    done = threading.Event()

    def found(entries: Sequence[Found]) -> None:
        answers.append(entries)
        done.set()

    live.source.search(query, found)
    assert done.wait(20), f"no answer to {query!r}"
    return list(answers[0])


def children(live: Live) -> list[int]:
    """The broker's children: here the searcher alone, for nothing is loaded."""
    path = Path(f"/proc/{live.broker}/task/{live.broker}/children")
    return [int(word) for word in path.read_text().split()]


def test_system_calls(live: Live) -> None:
    found = ask(live, "read")
    specs = [entry.spec for entry in found]
    assert "syscall:read" in specs[:10]
    assert len(set(specs)) == len(specs)
    (entry,) = [entry for entry in found if entry.spec == "syscall:read"]
    assert entry.mechanism == "syscall"
    assert entry.cost is not None
    assert 0 < entry.cost < 1e6


def test_functions_of_a_library(live: Live) -> None:
    found = ask(live, "uprobe:libc:mal")
    assert found[0].spec == "uprobe:libc:malloc"
    assert found[0].mechanism == "uprobe"
    assert ask(live, "libc:mal")[0].spec == "uprobe:libc:malloc"


def test_functions_of_a_process(live: Live, program: Callable[[str], Path]) -> None:
    with Work(program("functions"), "empty", "1") as work:
        specs = [entry.spec for entry in ask(live, f"pid:{work.pid}:recursion")]
    assert f"uprobe:{program('functions')}:recursion" in specs


def test_what_is_found_can_be_traced(live: Live, program: Callable[[str], Path]) -> None:
    """Whatever it offers is in the grammar; one of each kind is attached."""
    queries = ("sched", f"{program('functions')}:work", "getppid", "runq", "t:sched_switch")
    chosen = []
    for query in queries:
        found = [e for e in ask(live, query) if e.mechanism not in ("file", "directory")]
        assert found, query
        for entry in found:
            assert parse(entry.spec).text == entry.spec
            assert entry.spec.isprintable()
            assert entry.note.isprintable()
        chosen.append(found[0].spec)
    with Timing(*dict.fromkeys(chosen)) as timing:
        states = {spec: (t.state, t.why) for spec, t in timing.now().items()}
    assert set(states.values()) == {("on", None)}


@pytest.mark.parametrize("query", ["zzzqqqxxxyyy", "/no/such/file:main"])
def test_nothing_is_found(live: Live, query: str) -> None:
    assert ask(live, query) == []


@pytest.mark.parametrize("query", ["/etc/passwd:main", "pid:99999999:x"])
def test_errors_are_answers(live: Live, query: str) -> None:
    (entry,) = ask(live, query)
    assert (entry.spec, entry.mechanism, entry.cost) == ("", "", None)
    assert entry.note.isprintable()
    assert len(entry.note) > 10
    assert ask(live, "syscall:read")[0].spec == "syscall:read"


@pytest.mark.parametrize(
    "query", ["", "::::", "\0", "\x1b[31m", "[bold]", "*" * 5000, "\udcff", "é"]
)
def test_hostile_queries_are_answered(live: Live, query: str) -> None:
    for entry in ask(live, query):
        assert entry.spec.isprintable()
        assert entry.note.isprintable()


def test_only_the_newest_of_a_burst_is_answered(live: Live) -> None:
    """Who types fast asks for every letter; what is shown must be the last."""
    answered: list[str] = []
    first: list[str] = []
    done = threading.Event()
    word = "syscall:clock_nanosleep"
    queries = [word[:n] for n in range(1, len(word) + 1)]

    def answer_to(query: str) -> Callable[[Sequence[Found]], None]:
        def found(entries: Sequence[Found]) -> None:
            answered.append(query)
            if query == word:
                first.append(entries[0].spec)
                done.set()

        return found

    for query in queries:
        live.source.search(query, answer_to(query))
    assert done.wait(20)
    # Asked after all of them, so that no answer is still under way.
    ask(live, "read")
    assert answered[-1] == word
    assert first == [word]
    assert len(answered) < len(queries)


def test_a_killed_searcher_is_followed_by_another(live: Live) -> None:
    ask(live, "read")
    (first,) = children(live)
    os.kill(first, signal.SIGKILL)
    eventually("it has gone", lambda: children(live) == [])
    assert ask(live, "syscall:read")[0].spec == "syscall:read"
    (second,) = children(live)
    assert second != first


def test_a_question_that_the_searcher_dies_of_is_answered(live: Live) -> None:
    ask(live, "read")
    (searcher,) = children(live)
    os.kill(searcher, signal.SIGSTOP)
    answers: list[Sequence[Found]] = []
    live.source.search("read", answers.append)
    # The source's and the broker's loops turn meanwhile; the question has been passed on.
    live.settled()
    os.kill(searcher, signal.SIGKILL)
    eventually("there is an answer", lambda: answers)
    assert [entry.note for entry in answers[0]] == ["the search ended without an answer"]
    assert ask(live, "syscall:read")[0].spec == "syscall:read"


def test_the_searcher_ends_with_the_broker() -> None:
    with Live(paths=PATHS) as live:
        ask(live, "read")
        (searcher,) = children(live)
        assert is_running(searcher)
    eventually("the searcher has ended", lambda: not is_running(searcher))
    assert not is_running(live.broker)


def test_the_searcher_ends_when_the_broker_is_killed() -> None:
    with Live(paths=PATHS) as live:
        ask(live, "read")
        (searcher,) = children(live)
        os.kill(live.broker, signal.SIGKILL)
        eventually("the searcher has ended", lambda: not is_running(searcher))
        assert "helper has ended" in live.ended()


def test_searching_disturbs_no_target(program: Callable[[str], Path]) -> None:
    path = program("functions")
    spec = f"uprobe:{path}:steady"
    with Timing(spec) as live, Work(path, "until", "1000") as work:
        work.go()
        for query in ("read", f"{path}:", "libc:", "t:", "k:vfs"):
            ask(live, query)
        (made,) = work.work()
        assert live.now()[spec].histogram.n == made
