# SPDX-License-Identifier: Apache-2.0
"""Probe options that keys have requested and that no Frame shows yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

PATIENCE = 5
"""Intervals after which an option that has not changed is forgotten."""


class _Choice(NamedTuple):
    """A requested value, the value before it, and the intervals left to wait for it."""

    value: str
    before: str
    left: int


class RequestedOptions:
    """The last requested value of each option; the next press of a key starts from it."""

    def __init__(self) -> None:
        self._choices: dict[str, _Choice] = {}

    def next_choice(self, option: str, choices: Sequence[str], now: str) -> str:
        """The choice after the requested value, or after the shown value if none is requested."""
        last = self._choices[option].value if option in self._choices else now
        at = choices.index(last) if last in choices else -1
        return choices[(at + 1) % len(choices)]

    def request(self, option: str, value: str, now: str) -> None:
        """Note a request for a value in place of the shown one."""
        self._choices[option] = _Choice(value, now, PATIENCE)

    def update(self, now: Mapping[str, str]) -> None:
        """Forget a request after the shown value has changed, or after `PATIENCE` intervals."""
        self._choices = {
            option: choice._replace(left=choice.left - 1)
            for option, choice in self._choices.items()
            if choice.left > 0 and choice.before == now[option]
        }
