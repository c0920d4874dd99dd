# SPDX-License-Identifier: Apache-2.0
"""What a load makes is bounded, and counted with the kernel's memory that it takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import cast

import pytest

from probes.bpf import program_loader
from probes.bpf.attach import Attacher
from probes.bpf.plan import Attach
from probes.bpf.program_loader import LINK_BYTES, PLACE_BYTES, Made


class OneLink:
    """Attaches to nothing: one link for each batch."""

    def attach_batch(self, batch: Sequence[Attach]) -> list[int]:
        return [os.open(os.devnull, os.O_RDONLY)]


def attached(wishes: Sequence[Attach]) -> Made:
    found = Made({}, {})
    found.attach_all(wishes, cast(Attacher, OneLink()))
    for fd in found.links:
        os.close(fd)
    return found


def places(count: int, group: int, path: str = "a") -> list[Attach]:
    return [
        Attach(kind="uprobe", function="f", path=path, offset=at, group=group)
        for at in range(count)
    ]


def test_each_place_of_a_link_counts() -> None:
    few, many = (attached(places(count, 0)).answer() for count in (1, 1000))
    assert few["program_bytes"] == LINK_BYTES + PLACE_BYTES
    assert many["program_bytes"] == LINK_BYTES + 1000 * PLACE_BYTES
    event = Attach(kind="raw_tracepoint", function="f", target="sys_exit")
    assert attached([event]).answer()["program_bytes"] == LINK_BYTES


def test_places_of_a_load_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets beyond the bound fail; those before, and small ones behind, do not."""
    monkeypatch.setattr(program_loader, "MOST_PLACES", 10)
    wishes = [*places(6, 0), *places(2, 1), *places(6, 1, "b"), *places(4, 2)]
    found = attached(wishes)
    assert set(found.failures) == {1}
    assert "more than 10 places" in found.failures[1][0]
    assert found.groups == [0, 2]
    assert found.answer()["program_bytes"] == 2 * LINK_BYTES + 10 * PLACE_BYTES
