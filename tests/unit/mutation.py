# SPDX-License-Identifier: Apache-2.0
"""Structure-aware mutations of JSON values, for fuzz tests: numbers, texts and shapes."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

NUMBERS: tuple[Any, ...] = (
    -1, 0, 1, 2, 31, 32, 1279, 1280, 1281, 4095, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**37, 2**48, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**72 - 1, 2**72, 2**79, 2**200,
    -(2**31), -(2**63), -(2**79), 0.0, -0.0, 0.5, 1e-3, 1e-300, 5e-324, 1e10, 1e11, 1e12, 1e300,
    -1e9, -1e300, True, False,
)  # fmt: skip
TEXTS: tuple[Any, ...] = (
    "", "a", "x" * 1024, "x" * 1025, "y" * 5000, "\x1b[2J\x07", "\x00", "</script>", "\u202e", "é",
    "日本", "\ud800", "\udcff", "[bold]", "{{x}}", "a\nb\r", "read", "cycles", "pid", "runq", "on",
    "off", "failed", "starting", "SyscallSample", "ExecEvent", "PmcSample", "Sample",
)  # fmt: skip
SHAPES: tuple[Any, ...] = (None, [], {}, [[]], [[], []], [None], {"a": 1}, [1, 2], [[1], [1]])


def mutated(value: Any, chance: Random, times: int) -> Any:
    """A copy with so many changes at random places; `value` is a list or an object."""
    value = copy.deepcopy(value)
    for _ in range(times):
        _mutate(value, chance)
    return value


def _mutate(place: Any, chance: Random) -> None:
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = chance.choice(keys)
        inner = place[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.9:
            place = inner
            continue
        break
    kind = chance.randrange(10)
    if kind < 6:
        place[key] = _like(place[key], chance)
    elif kind == 6:
        place[key] = _any(chance)
    elif kind == 7:
        del place[key]
    elif isinstance(place, list):
        place.insert(chance.randrange(len(place) + 1), copy.deepcopy(chance.choice(place)))
    else:
        place[chance.choice(("samples", "calls", "matrix", "why", "new", *place))] = _any(chance)


def _like(value: Any, chance: Random) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool | int | float):
        return chance.choice((*NUMBERS, chance.randrange(-100, 3000), chance.random() * 1e6))
    if isinstance(value, str):
        return chance.choice(TEXTS)
    return copy.deepcopy(chance.choice(SHAPES))


def _any(chance: Random) -> Any:
    return copy.deepcopy(chance.choice((*NUMBERS, *TEXTS, *SHAPES)))
