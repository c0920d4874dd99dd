# SPDX-License-Identifier: Apache-2.0
"""C++ functions by their names in the source: found, traced, and counted apart by type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from probes.symbols.search import Catalog
from tests.kernel.harness import Work
from tests.kernel.timing import Timing, since

pytestmark = pytest.mark.kernel
N = 300


def test_members_of_templates_are_traced_by_any_of_their_names(
    program: Callable[[str], Path],
) -> None:
    path = program("basket")
    names = {
        "shop::Basket<int>::add": N,
        "shop::Basket<int>::add(int)": N,
        "_ZN4shop6BasketIiE3addEi": N,
        "shop::Basket<double>::add": 2 * N,
        "shop::Basket<*>::add*": 3 * N,
    }
    specs = {f"uprobe:{path}:{name}": n for name, n in names.items()}
    with Timing(*specs) as live:
        assert {one.spec: one.why for one in live.decided(*specs)} == dict.fromkeys(specs)
        with Work(path, str(N)) as work:
            before = live.latency()
            work.work()
            after = live.latency()
    assert {spec: since(before, after, spec)[0].n for spec in specs} == specs


def test_what_is_found_by_a_part_of_a_name_can_be_traced(program: Callable[[str], Path]) -> None:
    path = program("basket")
    for query in ("basket<double>::add", "add double", "_ZN4shop6BasketIdE3"):
        found = Catalog(fentry=False, kprobes=False).search(f"{path}:{query}")[0]
        assert found.spec == f"uprobe:{path}:shop::Basket<double>::add"
        assert found.note == "shop::Basket<double>::add(double)"


def test_a_name_that_several_have_is_told_with_their_arguments(
    program: Callable[[str], Path],
) -> None:
    spec = f"uprobe:{program('basket')}:add"
    with Timing(spec) as live:
        (target,) = live.decided(spec)
    assert target.state == "failed"
    assert "shop::Basket<int>::add(int)" in (target.fix or "")
