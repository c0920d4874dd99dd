# SPDX-License-Identifier: Apache-2.0
"""Options of a probe that keys asked for, until a Frame shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

PATIENCE = 5
"""Intervals in which what was asked for may come."""


class _Choice(NamedTuple):
    """A value that was asked for, the one before, the intervals left to wait."""

    value: str
    before: str
    left: int


class Asked:
    """What was asked for last, by option: the next press of a key goes on from there."""

    def __init__(self) -> None:
        self._choices: dict[str, _Choice] = {}

    def after(self, option: str, choices: Sequence[str], now: str) -> str:
        """The choice after the one asked for last, else after the one that is shown."""
        last = self._choices[option].value if option in self._choices else now
        at = choices.index(last) if last in choices else -1
        return choices[(at + 1) % len(choices)]

    def ask(self, option: str, value: str, now: str) -> None:
        """Note that a value was asked for where another one is shown."""
        self._choices[option] = _Choice(value, now, PATIENCE)

    def shown(self, now: Mapping[str, str]) -> None:
        """Forget what was asked for once something changed, or if it does not come."""
        self._choices = {
            option: choice._replace(left=choice.left - 1)
            for option, choice in self._choices.items()
            if choice.left > 0 and choice.before == now[option]
        }
