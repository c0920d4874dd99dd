# SPDX-License-Identifier: Apache-2.0
"""Numbers of processes: one for each, whoever had its pid before."""

from __future__ import annotations

import time

import pytest

from probes.core import process_keys
from probes.core.process_keys import Processes, pid_of


def test_the_first_process_with_a_pid_has_it_as_its_number() -> None:
    known = Processes()
    assert known.number(7, 1000) == 7
    assert known.number(7, 1000) == 7
    assert known.number(0, 0) == 0


def test_the_next_process_with_that_pid_has_another_number() -> None:
    known = Processes()
    numbers = [known.number(7, start) for start in (1000, 2000, 3000)]
    assert len(set(numbers)) == 3
    assert {pid_of(number) for number in numbers} == {7}
    # What is read late of an older one is still its own.
    assert known.number(7, 1000) == numbers[0]
    assert known.number(7, 0) == numbers[2]
    assert known.alive([7, 8]) == {numbers[2], 8}


def test_a_process_keeps_its_number_when_it_executes_a_program() -> None:
    known = Processes()
    assert [known.number(7, 6400 + executions) for executions in range(64)] == [7] * 64


def test_numbers_fit_into_32_bits() -> None:
    known = Processes()
    highest = (1 << process_keys.PID_BITS) - 1
    numbers = [known.number(highest, start) for start in range(64, 64 * 3000, 64)]
    assert max(numbers) < 1 << 32
    assert len(set(numbers)) > 1000


def test_what_is_no_pid_stays_as_it_is() -> None:
    known = Processes()
    text = (1 << 32) - 5
    assert known.number(text, 0) == text


def test_the_name_that_was_noted_last_stays() -> None:
    known = Processes()
    comms: dict[int, str] = {}
    now = time.monotonic_ns() >> process_keys.NOTED_SHIFT
    for comm, ago in (("old", 50), ("new", 10), ("old", 20)):
        known.name(comms, 7, comm, (now - ago) << process_keys.INDEX_BITS & (1 << 64) - 1)
    assert comms == {7: "new"}


def test_who_is_known_is_bounded_and_numbers_are_not_given_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_keys, "MOST_KNOWN", 100)
    known = Processes()
    first = {known.number(pid, 64) for pid in range(1, 151)}
    known.forget({1, 2})
    assert len(known.numbers) <= 100
    assert known.number(1, 64) == 1
    again = known.number(3, 640)
    assert pid_of(again) == 3
    assert again not in first
