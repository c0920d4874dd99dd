# SPDX-License-Identifier: Apache-2.0
"""Options of the counters: what is taken, what is refused and how, what they switch on."""

from __future__ import annotations

from typing import Any

import pytest

from tui.cli import _probe_options
from tui.settings.options import Options, resolve
from tui.settings.validators import UsageError


def resolved(**typed: Any) -> Options:
    return resolve({name.replace("_", "-"): value for name, value in typed.items()}, {}, live=True)


def refused(**typed: Any) -> str:
    with pytest.raises(UsageError) as error:
        resolved(**typed)
    assert error.value.fix
    return f"{error.value.why}; {error.value.fix}"


def test_events_are_as_perf_writes_them_and_make_a_set_of_their_own() -> None:
    options = resolved(event=["cycles,instructions", "loads=r01d1", "cycles,instructions"])
    assert options.events == ("cycles", "instructions", "loads=r01d1")
    assert _probe_options(options) == {"pmc": {"events": ("cycles", "instructions", "loads=r01d1")}}
    assert resolved(event=["cycles"], event_set="tlb").event_set is None


def test_a_set_and_a_mode() -> None:
    options = resolved(event_set="stalls", user_only=True)
    assert _probe_options(options) == {"pmc": {"set": "stalls", "mode": "user"}}
    assert _probe_options(resolved(kernel_only=True)) == {"pmc": {"mode": "kernel"}}
    assert _probe_options(resolved()) == {}


@pytest.mark.parametrize(
    "typed", [{"event": ["cycles"]}, {"event_set": "tlb"}, {"user_only": True}]
)
def test_what_is_asked_of_the_counters_switches_them_on(typed: dict[str, Any]) -> None:
    assert resolved(probes="syscalls", **typed).probes == ("syscalls", "pmc")
    assert "pmc" in resolved(**typed).probes


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"event": ["cycels"]}, "--event 'cycels': 'cycels' is no event"),
        ({"event": ["cycels"]}, "cycles"),
        ({"event": [""]}, "--event '': no event was named"),
        ({"event": ["cpu/x"]}, "no second slash"),
        ({"event": [f"r{number}" for number in range(9)]}, "--event: 9 events are too many"),
        ({"event_set": "cash"}, "--event-set 'cash': no such event set; did you mean cache?"),
        ({"user_only": True, "kernel_only": True}, "nothing is left with --kernel-only"),
    ],
)
def test_what_is_wrong_is_one_line_with_a_remedy(typed: dict[str, Any], said: str) -> None:
    assert said in refused(**typed)
