# SPDX-License-Identifier: Apache-2.0
"""What a probe's counters are compared with when it is to say what it saw last."""

from __future__ import annotations

from typing import cast

import pytest

from probes.live.probe_state import Slot
from probes.probe import Probe
from probes.syscalls.sample import SyscallSample


@pytest.fixture
def slot() -> Slot:
    """A probe that was attached at 10 s."""
    return Slot(cast(Probe, None), state="on", begun=10.0)


def test_without_a_frame_it_is_since_it_was_attached(slot: Slot) -> None:
    assert slot.before(10.25) == (None, 10.0)


def test_a_frame_that_did_not_have_it_yet_is_nothing_to_compare_with(slot: Slot) -> None:
    slot.frame(SyscallSample(state="starting"), 9.9)
    assert slot.before(10.25) == (None, 10.0)


def test_it_is_since_the_last_frame(slot: Slot) -> None:
    first, second = SyscallSample(state="on"), SyscallSample(state="on")
    slot.frame(first, 10.5)
    assert slot.before(11.0) == (first, 10.5)
    slot.frame(second, 11.5)
    sample, when = slot.before(12.0)
    assert sample is second
    assert when == 11.5


def test_a_frame_that_has_just_been_made_is_too_short_ago(slot: Slot) -> None:
    """A look at the cost comes with a Frame: milliseconds are some program's turn on a CPU."""
    first, second = SyscallSample(state="on"), SyscallSample(state="on")
    slot.frame(first, 10.5)
    assert slot.before(10.503) == (None, 10.0)
    slot.frame(second, 11.5)
    sample, when = slot.before(11.503)
    assert sample is first
    assert when == 10.5


def test_no_more_than_two_are_kept(slot: Slot) -> None:
    for n in range(5):
        slot.frame(SyscallSample(state="on"), 10.0 + n)
    assert [when for when, _ in slot.framed] == [13.0, 14.0]
