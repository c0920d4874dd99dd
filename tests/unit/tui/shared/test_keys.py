# SPDX-License-Identifier: Apache-2.0
"""The table of keys is what the screen binds, what the commands are, and what README says."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from tests.paths import ROOT
from tests.pilot.fake import FakeSource
from tui.app.app import ProbetopApp
from tui.app.screen import DashboardScreen
from tui.app.start import dashboard
from tui.registry import REGISTRY
from tui.shared.keys import KEYS, ROWS, help_rows, hint, readme_rows
from tui.widgets.help import KEYS as HELP

README = (ROOT / "README.md").read_text("utf-8")
SECTION = README.partition("\n## Keys\n")[2].partition("\n## ")[0]


def tables() -> list[list[str]]:
    """Rows of the tables of keys in README, without their heads."""
    found = re.findall(
        r"^\| key \| what it does \|\n\| --- \| --- \|\n((?:\|.*\n)+)", SECTION, re.M
    )
    return [table.splitlines() for table in found]


def test_readme_has_the_table() -> None:
    assert tables()[0] == readme_rows()


def test_readme_has_the_keys_of_panes() -> None:
    options = {key for entry in REGISTRY for key, _ in entry.pane_class()().options()}
    listed = set(re.findall(r"`(.)`", " ".join([row.split("|")[1] for row in tables()[1]])))
    # One is offered only while a traced file was replaced.
    assert listed == options | {"a"}


def test_a_key_has_one_command() -> None:
    names = [name for key in KEYS for name in key.names.split(",")]
    assert sorted(set(names)) == sorted(names)


def test_keys_of_panes_are_no_others_commands() -> None:
    options = {key for entry in REGISTRY for key, _ in entry.pane_class()().options()}
    assert not options & {name for key in KEYS for name in key.names.split(",")}


def test_all_commands_are_there_and_no_others() -> None:
    screen_commands = {key.command for key in KEYS if not key.everywhere}
    assert set(dashboard(FakeSource()).dashboard.commands) == screen_commands


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.names)
def test_each_key_is_bound(key: SimpleNamespace) -> None:
    owner = ProbetopApp if key.everywhere else DashboardScreen
    bound = {binding.key: binding.action for binding in owner.BINDINGS}  # type: ignore[union-attr]
    assert bound[key.names] == (key.command if key.everywhere else key.action)


def test_the_help_has_each_row_with_a_text() -> None:
    shown = [row.caps for row in ROWS if row.help and not row.several]
    assert [caps for caps, _ in HELP] == shown
    assert [caps for caps, _ in help_rows(several=True)] == ["n N"]


def test_the_footer_writes_ascii_where_it_must() -> None:
    assert hint("step") == ("←→", "time")
    assert hint("step", "past", plain=True) == ("<- ->", "past")
    assert hint("zoom", "unzoom") == ("z", "unzoom")
