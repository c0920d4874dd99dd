# SPDX-License-Identifier: Apache-2.0
"""The search dialog without its widget: what Enter takes, and what is said."""

from __future__ import annotations

import pytest

from probes.source import Found
from tui.shared.styled_lines import line_text
from tui.shared.theme import Theme
from tui.widgets.target_search import AS_TYPED, Finder

READ = Found("fentry:vfs_read", "fentry", "ssize_t vfs_read(...)", 96.0)
READV = Found("kprobe:vfs_readv", "kprobe")
LOOK = Theme()


class Dialog:
    def __init__(self) -> None:
        self.added: list[str] = []
        self.asked: list[str] = []
        self.wrong: str | None = None
        self.finder = Finder(self.add, self.asked.append)

    def add(self, spec: str) -> str | None:
        self.added.append(spec)
        return self.wrong

    def texts(self, cells: int = 90, height: int = 12) -> list[str]:
        return [line_text(line).rstrip() for line in self.finder.lines(cells, height, LOOK)]


@pytest.fixture
def dialog() -> Dialog:
    return Dialog()


def test_enter_adds_the_best_that_was_found(dialog: Dialog) -> None:
    dialog.finder.prompt.insert("vfs")
    assert dialog.asked == ["vfs"]
    assert dialog.texts()[-1] == " searching"
    assert dialog.finder.answer("vfs", [READ, READV])
    assert [text.split() for text in dialog.texts()[2:5]] == [
        ["target", "how", "cost"],
        ["fentry:vfs_read", "fentry", "96ns", "ssize_t", "vfs_read(...)"],
        ["kprobe:vfs_readv", "kprobe", "-"],
    ]
    assert dialog.texts()[-1].startswith(" 2 found")
    assert dialog.finder.enter()
    assert dialog.added == ["fentry:vfs_read"]


def test_the_cursor_chooses(dialog: Dialog) -> None:
    dialog.finder.prompt.insert("vfs")
    dialog.finder.answer("vfs", [READ, READV])
    dialog.finder.move("down")
    dialog.finder.enter()
    assert dialog.added == ["kprobe:vfs_readv"]


def test_an_answer_to_what_is_no_longer_asked_is_ignored(dialog: Dialog) -> None:
    dialog.finder.prompt.insert("vf")
    dialog.finder.prompt.insert("s")
    assert not dialog.finder.answer("vf", [READ])
    assert dialog.finder.found == ()
    dialog.finder.answer("vfs", [READ])
    dialog.finder.prompt.insert("_w")
    # The list is an old one: Enter does not take from it.
    assert not dialog.finder.enter()
    assert dialog.added == []
    assert dialog.texts()[-1] == " searching"


def test_a_whole_spec_can_be_added_though_it_is_not_listed(dialog: Dialog) -> None:
    dialog.finder.prompt.insert(" uprobe:/srv/app:main ")
    assert dialog.finder.enter()
    dialog.finder.answer("uprobe:/srv/app:main", [])
    assert AS_TYPED in dialog.texts()[3]
    assert dialog.finder.enter()
    assert dialog.added == ["uprobe:/srv/app:main"] * 2


@pytest.mark.parametrize(
    ("typed", "added"),
    [
        ("fentry:vfs_re", "fentry:vfs_read"),
        ("fentry:vfs_*", "fentry:vfs_*"),
        ("usdt:python3:gc__start,gc__done", "usdt:python3:gc__start,gc__done"),
        ("fentry:vfs_read", "fentry:vfs_read"),
    ],
)
def test_the_start_of_a_spec_is_completed_and_a_pattern_is_meant(
    dialog: Dialog, typed: str, added: str
) -> None:
    dialog.finder.prompt.insert(typed)
    dialog.finder.answer(typed, [READ])
    listed = [row.spec for row in dialog.finder.table.rows]
    assert listed == ([READ.spec] if typed == READ.spec else [typed, READ.spec])
    dialog.finder.enter()
    assert dialog.added == [added]


def test_what_is_wrong_is_said_until_something_else_is_typed(dialog: Dialog) -> None:
    dialog.wrong = "[bold]no \x1b[2Jsymbol[/]: did you mean x?"
    dialog.finder.prompt.insert("vfs")
    dialog.finder.answer("vfs", [READ])
    assert not dialog.finder.enter()
    assert dialog.texts()[-1] == " [bold]no \\e[2Jsymbol[/]: did you mean x?"
    assert len(dialog.texts(30)) == 12
    dialog.finder.prompt.insert("_")
    assert dialog.texts()[-1] == " searching"


def test_nothing_found_and_nothing_to_take(dialog: Dialog) -> None:
    assert not dialog.finder.enter()
    dialog.finder.prompt.insert("zzz")
    dialog.finder.answer("zzz", [])
    assert dialog.texts()[-1] == " no target matches 'zzz'"
    assert not dialog.finder.enter()
    assert dialog.added == []
