# SPDX-License-Identifier: Apache-2.0
"""Wildcards mean what they always mean, and no pattern and no name makes them slow."""

from __future__ import annotations

import random
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from probes.core.errors import ProbeError
from probes.core.suggestions import near
from probes.host import file_access
from probes.host.file_access import TooSlow
from probes.symbols.binaries import places
from probes.symbols.globs import MOST_PATTERN, matcher, matching
from probes.symbols.kernel_functions import Kernel, Where
from probes.symbols.target_spec import parse
from tests.fuzzing import inputs
from tests.unit.elf_file import FUNC, GLOBAL, ElfFile, Row
from tests.unit.probes.symbols.test_hostile_elf import limited

STARS = "*a" * 30 + "*b"
"""A backtracking matcher tries all ways to cut a name of many a's into 31 pieces."""


def test_the_same_as_fnmatch_on_random_inputs() -> None:
    chance = random.Random(21)
    seen = set()
    for _ in range(20 * inputs()):
        pattern = "".join(chance.choices("ab*?", k=chance.randrange(9)))
        name = "".join(chance.choices("ab\n", (5, 5, 1), k=chance.randrange(10)))
        expected = fnmatchcase(name, pattern)
        assert matcher(pattern)(name) is expected, (pattern, name)
        seen.add(expected)
    assert seen == {True, False}


@pytest.mark.parametrize("text", ["[a]", "a.b", "a|b", "^a$", r"\d", "a+", "(a)", "{1}"])
def test_all_else_stands_for_itself(text: str) -> None:
    assert matcher(text)(text)
    assert matcher(f"*{text}?")(f"xx{text}y")
    assert not matcher(text)("a")
    assert not matcher(text)("aXb")


def test_many_stars_and_long_names() -> None:
    def match() -> list[bool]:
        fits = matcher(STARS)
        return [fits("a" * 100_000), fits("a" * 100_000 + "b"), fits("ab" * 50_000)]

    assert limited(match) == "[False, True, True]"


def test_a_wildcard_in_a_file_costs_its_own_target_at_most(tmp_path: Path) -> None:
    path = tmp_path / "long.elf"
    rows: list[Row] = [("a" * 4000 + str(n), FUNC, GLOBAL, n, 1) for n in range(20)]
    path.write_bytes(ElfFile(symtab=rows).build())

    def theme() -> object:
        return places(parse(f"uprobe:{path}:{STARS}"))

    assert "matches no function" in limited(theme)


def test_a_wildcard_among_the_functions_of_a_kernel(tmp_path: Path) -> None:
    rows = [f"ffff000000000{n:03x} T {'a' * 4000}{n}\n" for n in range(20)]
    (tmp_path / "kallsyms").write_text("".join(rows))
    known = Kernel(Where(tmp_path / "kallsyms", tmp_path / "btf"))
    assert "matches no function" in limited(lambda: known.expand(STARS))


def test_patterns_have_a_length_and_searches_an_end() -> None:
    assert matcher("a" * MOST_PATTERN)("a" * MOST_PATTERN)
    with pytest.raises(ProbeError, match=r"has 513 characters: shorten it"):
        matcher("a" * (MOST_PATTERN + 1))
    with file_access.target("", 0.0), pytest.raises(TooSlow):
        list(matching("a*", ["a", "b"]))
    assert list(matching("a*", ["a", "b", "ab"])) == ["a", "ab"]


def test_names_that_are_near_to_a_long_one_take_no_time() -> None:
    names = ["a" * 4000 + str(n) for n in range(300)]
    assert limited(lambda: near("b".join(["a" * 1000] * 4), names)) == "[]"
    assert near("vfs_raed", ["vfs_read", "x"]) == ["vfs_read"]


def test_a_text_of_many_blanks_is_refused_at_once() -> None:
    text = "usdt:/x:n@str(" + " " * 15_000 + ")"
    assert limited(lambda: parse(text).text_field).startswith("ProbeError: 'str(  ")
    text = "usdt:/x:n@str(" + " " * 150_000 + "x"
    assert "characters: shorten it" in limited(lambda: parse(text))
