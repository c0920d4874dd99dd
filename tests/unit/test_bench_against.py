# SPDX-License-Identifier: Apache-2.0
"""When this tree is slower than another commit, and how that commit is found and asked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import against, commit, cost
from bench.against import Pair, Pairs, as_table, verdict
from bench.commit import HERE_NOW, LOCK, Side, SideError
from bench.measure import ROOT, BenchError

OTHER = Side("abcdef123", ROOT, sys.executable)


def pairs(*ratios: float) -> list[Pair]:
    return [Pair(100 * ratio, 100.0) for ratio in ratios]


def test_slower_is_what_is_above_the_limit_beyond_all_noise() -> None:
    assert verdict(pairs(1.12, 1.2, 1.15, 1.13, 1.14, 1.3)) == (
        "1.145", "1.120 to 1.300", "slower by 15 %",
    )  # fmt: skip
    # One round of six is not above: by chance that is so once in 32 times.
    assert verdict(pairs(1.05, 1.2, 1.15, 1.13, 1.14, 1.3))[2] == "not known: too much noise"
    assert verdict(pairs(0.9, 1.0, 1.0, 1.1, 1.0, 1.0))[2] == "not slower"
    assert verdict(pairs(0.5, 0.6, 0.4, 0.5, 0.5, 0.5))[0] == "0.500"


def test_what_adds_less_than_the_noise_has_no_ratio() -> None:
    assert verdict([Pair(2.0, -1.0), Pair(2.0, 1.0)])[0] == "-"
    assert verdict([])[0] == "-"


def test_the_table_tells_both_sides_and_what_could_not_be_compared() -> None:
    found: Pairs = {"a poll, ms": [Pair(2.0, 1.0), Pair(4.0, 2.0), Pair(3.0, 1.5)]}
    title, head, rows = as_table(found, {"drawing": "abc: it has none"}, (HERE_NOW, OTHER))
    assert title == "this tree beside abcdef123, by turns"
    assert head == ("what", "other", "this", "ratio", "75 % interval", "result")
    assert rows == [
        ("a poll, ms", "1.50", "3.00", "2.000", "2.000 to 2.000", "slower by 100 %"),
        ("drawing", "-", "-", "-", "-", "not compared: abc: it has none"),
    ]


def compared(
    monkeypatch: pytest.MonkeyPatch, parts: dict[str, Callable[[], Pairs]]
) -> tuple[str, int]:
    """What `bench --against` prints of these parts, and its status."""
    monkeypatch.setattr(against, "check_out", lambda name, folder: OTHER)
    monkeypatch.setattr(against, "_parts", lambda *_: parts)
    printed: list[str] = []
    monkeypatch.setattr(cost, "print", lambda text, **_: printed.append(text), raising=False)
    monkeypatch.setattr(cost, "say", printed.append)
    status = cost.against("abcdef123", True)
    return "\n".join(printed), status


def test_a_slower_part_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    same, slow = pairs(*[1.0] * 6), pairs(*[1.5] * 6)
    text, status = compared(monkeypatch, {"a": lambda: {"a": same}})
    assert status == 0
    assert "not slower" in text
    text, status = compared(monkeypatch, {"a": lambda: {"a": same}, "b": lambda: {"b": slow}})
    assert status == 1
    assert "slower by 50 %" in text


def test_only_the_other_commit_may_lack_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(side: Side) -> Callable[[], Pairs]:
        def measured() -> Pairs:
            raise SideError(side, "has none")

        return measured

    text, status = compared(monkeypatch, {"b": lacks(OTHER)})
    assert status == 0
    assert "not compared: abcdef123: has none" in text
    text, status = compared(monkeypatch, {"b": lacks(HERE_NOW)})
    assert status == 1
    assert "bench: this tree: has none" in text


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, whose file has changed since."""
    root = tmp_path / "repository"
    (root / "bench").mkdir(parents=True)
    (root / LOCK).write_text("")
    (root / "file").write_text("old\n")
    (root / "bench" / "__init__.py").write_text("")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", *words], cwd=root, check=True)
    (root / "file").write_text("new\n")
    monkeypatch.setattr(commit, "ROOT", root)
    return root


def test_a_commit_is_taken_as_it_was_and_the_repository_stays(
    repository: Path, tmp_path: Path
) -> None:
    before = sorted(path for path in repository.rglob("*"))
    side = commit.check_out("HEAD", tmp_path)
    assert (side.root / "file").read_text() == "old\n"
    assert side.python == sys.executable
    assert side.environment["PYTHONPATH"] == str(side.root)
    # What an older commit lacks is brought along.
    assert (side.root / "bench" / "worker.py").is_file()
    assert sorted(path for path in repository.rglob("*")) == before


@pytest.mark.parametrize("name", ["nothing", "--all", "HEAD:file", "", "HEAD..HEAD"])
def test_what_is_no_commit_is_said(repository: Path, name: str) -> None:
    with pytest.raises(BenchError, match="no such commit"):
        commit.hash_of(name)


@pytest.mark.parametrize("probe", against.POLLS)
def test_each_side_polls_every_probe(probe: str) -> None:
    found = against.of_poll((HERE_NOW, OTHER), probe, 1)
    assert [len(ratios) for ratios in found.values()] == [1, 1]
    assert all(value > 0 for ratios in found.values() for value in ratios[0])


def test_each_side_draws_a_recording() -> None:
    spent = against.drawn((HERE_NOW, OTHER), ROOT / against.RECORDING)
    assert min(spent) > 0


def test_a_side_that_cannot_poll_is_named(tmp_path: Path) -> None:
    broken = Side("broken", tmp_path, "/bin/false")
    with pytest.raises(SideError, match=r"broken: .* does not poll pmc") as caught:
        against.of_poll((HERE_NOW, broken), "pmc", 1)
    assert caught.value.side == broken
