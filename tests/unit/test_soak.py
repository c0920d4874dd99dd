# SPDX-License-Identifier: Apache-2.0
"""The judge of a long run on made-up figures, and what it is given: the screen, what is held."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
from collections.abc import Iterator

import pytest

from bench.emulator import Screen
from bench.flat import FEWEST, Limit, grown, growth
from bench.held import LIMITS, children, held, is_zombie

SAMPLES = 48
"""About as many as the two-minute form takes."""
FIGURES = {"small objects": 440.0, "large objects": 20.0, "memory": 110.0}
"""What a run has of them."""


def load(seed: int, floor: float, leak: float = 0.0) -> list[float]:
    """A series that warms up, with a load that comes and goes, and what leaks by each sample."""
    rng = random.Random(seed)
    values = []
    for at in range(SAMPLES):
        warm = min(1.0, 0.6 + 2.0 * at / SAMPLES)
        values.append(floor * warm * (1 + 0.3 * rng.random() ** 2) + leak * at)
    # Nothing is in use at times.
    for at in range(5, SAMPLES, 6):
        values[at] = floor * min(1.0, 0.6 + 2.0 * at / SAMPLES) + leak * at
    return values


@pytest.mark.parametrize("seed", range(20))
def test_warming_up_and_a_load_that_comes_and_goes_are_no_growth(seed: int) -> None:
    series = {name: load(seed, floor) for name, floor in FIGURES.items()}
    series["memory"][-3] += 100.0
    series["descriptors"] = [81.0 + (seed + at) % 3 for at in range(SAMPLES)]
    assert grown(series, {name: LIMITS[name] for name in series}) == []


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", ["small objects", "large objects"])
def test_a_megabyte_a_minute_is_seen_in_two_minutes(seed: int, name: str) -> None:
    # 48 samples are two minutes; small objects have 50 bytes or more, on average 70.
    leak = {"small objects": 20.0, "large objects": 1.2}[name] * 2 / SAMPLES
    series = {name: load(seed, FIGURES[name], leak)}
    (line,) = grown(series, {name: LIMITS[name]})
    assert line.startswith(f"{name} grew by ")


@pytest.mark.parametrize("name", ["descriptors", "threads", "processes", "programs", "maps"])
def test_one_thing_that_is_left_by_every_toggle_is_seen(name: str) -> None:
    # A round of about five samples has two toggles.
    series = {name: [80.0 + 2 * (at // 5) for at in range(SAMPLES)]}
    (line,) = grown(series, {name: LIMITS[name]})
    assert line.startswith(f"{name} grew by 10, from 8")


def test_one_leak_of_a_whole_run_is_seen_where_nothing_may_come() -> None:
    series = {"links": [14.0] * 30 + [15.0] * 18}
    assert grown(series, {"links": LIMITS["links"]})[0].startswith("links grew by 1, from 14 to 15")


def test_what_shrinks_is_no_leak_and_few_values_tell_nothing() -> None:
    assert grown({"a": [float(-at) for at in range(FEWEST)]}, {"a": Limit(0)}) == []
    with pytest.raises(ValueError, match="7 values are too few"):
        growth([1.0] * (FEWEST - 1))


def test_a_screen_shows_what_was_written_where() -> None:
    screen = Screen(10, 3)
    wanted = "\x1b[?1049h\x1b]0;title\x07\x1b[2;3Hab\x1b[1mc\x1b[0m\x1b[1;1Hx\u2501y\r\n\x1b[9Gz"
    data = wanted.encode()
    for at in range(len(data)):  # whatever is cut in two
        screen.feed(data[at : at + 1])
    assert screen.lines() == ["x\u2501y", "  abc   z", ""]
    screen.feed(b"\x1b[2;4H\x1b[K\x1b[3;8Hlonger than it")
    assert screen.lines() == ["x\u2501y", "  a", "       lon"]
    screen.feed(b"\x1b[2J")
    assert screen.lines() == ["", "", ""]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    yield process
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def test_children_are_known_and_the_dead_are_told_from_the_living(
    child: subprocess.Popen[bytes],
) -> None:
    assert child.pid in children(os.getpid())
    assert not is_zombie(child.pid)
    child.kill()
    while not is_zombie(child.pid):
        pass
    assert held([os.getpid(), child.pid])["processes"] == 1


def test_what_a_process_holds_is_counted() -> None:
    before = held([os.getpid()])
    assert before["threads"] >= 1
    fds = os.pipe()
    with mmap.mmap(-1, 8 << 20) as memory:
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1
        after = held([os.getpid()])
    for fd in fds:
        os.close(fd)
    assert after["descriptors"] == before["descriptors"] + 2
    assert after["mapped counters"] == before["mapped counters"] == 0
    assert set(after) == set(LIMITS)
