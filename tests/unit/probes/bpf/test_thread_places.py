# SPDX-License-Identifier: Apache-2.0
"""How many places there are for threads, and that the source says the same."""

from __future__ import annotations

import re

import pytest

from probes.bpf.thread_places import FEWEST_SETS, MOST_SETS, PLACES, sets_for, sets_of_places
from tests.paths import INCLUDE

SOURCE = INCLUDE / "threads.h"


def test_the_source_has_as_many_places() -> None:
    found = re.search(r"#define PT_PLACES (\d+)", SOURCE.read_text())
    assert found is not None
    assert int(found[1]) == PLACES


@pytest.mark.parametrize("pid_max", [301, 32768, 65536])
def test_few_numbers_have_a_place_each(pid_max: int) -> None:
    """Numbers that share a set differ by its count, and each set has as many places."""
    sets = sets_for(pid_max, 10_000)
    assert sets & (sets - 1) == 0
    assert -(-pid_max // sets) <= PLACES


@pytest.mark.parametrize(
    ("threads", "sets"),
    [(0, FEWEST_SETS), (100, FEWEST_SETS), (50_000, 1 << 17), (4_000_000, MOST_SETS)],
)
def test_many_numbers_have_places_for_the_threads(threads: int, sets: int) -> None:
    assert sets_for(1 << 22, threads) == sets


def test_this_machine_has_places() -> None:
    sets = sets_of_places()
    assert sets & (sets - 1) == 0
    assert 0 < sets <= MOST_SETS
