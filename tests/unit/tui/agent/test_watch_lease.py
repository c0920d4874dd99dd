# SPDX-License-Identifier: Apache-2.0
"""Which probes are on: by what was wished for, who watches, and runs."""

from __future__ import annotations

from tui.agent.state.watch_lease import Demand, Watch


def test_it_is_watched_for_a_while_after_the_last_look() -> None:
    watch = Watch(30.0, 100.0)
    assert watch.watched(100.0)
    assert watch.watched(129.9)
    assert not watch.watched(130.0)
    watch.touch(140.0)
    assert watch.left(150.0) == 20.0
    assert not watch.watched(171.0)


def test_who_is_there_watches_until_gone_and_a_while_longer() -> None:
    watch = Watch(30.0, 0.0)
    watch.enter()
    watch.enter()
    assert watch.left(1e6) is None
    watch.leave(1e6)
    assert watch.watched(2e6)
    watch.leave(2e6)
    assert watch.left(2e6 + 10) == 20.0
    assert not watch.watched(2e6 + 31)


def test_without_linger_it_is_always_watched() -> None:
    watch = Watch(0.0, 0.0)
    assert watch.left(1e9) is None
    assert watch.watched(1e9)


def test_an_older_look_takes_nothing_back() -> None:
    watch = Watch(10.0, 50.0)
    watch.touch(20.0)
    assert watch.watched(59.0)


def test_runs_need_their_probes_whoever_watches() -> None:
    demand = Demand(("a", "b", "c"), ("a", "b"))
    assert demand.on(watched=True) == {"a", "b"}
    assert demand.on(watched=False) == set()
    demand.runs["1"] = frozenset({"c"})
    demand.runs["2"] = frozenset({"b", "c"})
    assert demand.on(watched=False) == {"b", "c"}
    assert demand.on(watched=True) == {"a", "b", "c"}
    demand.wanted["a"] = False
    del demand.runs["2"]
    assert demand.on(watched=True) == {"b", "c"}
