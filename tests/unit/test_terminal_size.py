# SPDX-License-Identifier: Apache-2.0
"""The size of the screen: the terminal's own, or what somebody says of one that has none."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.kernel.terminal import set_size
from tui.terminal.driver import size_of


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal, in an environment that tells of another size."""
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("LINES", "35")
    master, slave = os.openpty()
    yield slave
    os.close(slave)
    os.close(master)


def test_the_terminal_knows_better_than_the_environment(terminal: int) -> None:
    set_size(terminal, 110, 33)
    assert size_of(terminal) == (110, 33)
    set_size(terminal, 70, 20)
    assert size_of(terminal) == (70, 20)


@pytest.mark.parametrize("size", [(0, 0), (0, 24), (80, 0)])
def test_the_environment_tells_of_a_terminal_that_does_not_know(
    terminal: int, size: tuple[int, int]
) -> None:
    set_size(terminal, *size)
    assert size_of(terminal) == (90, 35)


def test_without_any_size_there_is_the_usual_one(
    terminal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    monkeypatch.delenv("LINES")
    set_size(terminal, 0, 0)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((0, 0)))
    assert size_of(terminal) == (80, 24)
