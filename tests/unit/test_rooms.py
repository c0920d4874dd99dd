# SPDX-License-Identifier: Apache-2.0
"""The rooms of tui: each imports only rooms below it, and no module imports itself by detours.

Read from the source, so that imports within functions count as well. What is imported for types
only does not.
"""

from __future__ import annotations

import ast
import pkgutil
import re
from collections.abc import Iterable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.paths import ROOT

MAY_IMPORT: Mapping[str, set[str]] = {
    "registry": set(),
    "shared": {"registry"},
    "settings": {"registry"},
    "terminal": set(),
    "panes": {"shared"},
    "sessions": {"panes", "shared", "registry"},
    "widgets": {"panes", "shared", "registry"},
    "hosts": {"sessions", "widgets", "shared"},
    "export": {"shared", "registry"},
    "app": {
        *("terminal", "panes", "sessions", "widgets", "hosts", "export"),
        *("settings", "shared", "registry"),
    },
    "agent": {"app", "export", "settings", "shared", "registry"},
    "commands": {"agent", "app", "export", "settings", "shared", "registry"},
    "cli": {"agent", "app", "commands", "export", "settings", "registry"},
}
"""The rooms and single modules of tui, lower ones first, and what each may import of them."""

DRAWING = ("app", "widgets", "terminal")
"""Rooms that are about the screen. In the others only these modules import Textual:"""
TEXTUAL = {
    "export": {"tui.export.picture"},
    "hosts": {"tui.hosts.hosts_bar"},
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted((ROOT / "tui").rglob("*.py"))}


def for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def statements(node: ast.AST) -> Iterable[ast.AST]:
    """All nodes but those that are there for types only."""
    for child in ast.iter_child_nodes(node):
        if not for_types(child):
            yield child
            yield from statements(child)


def imports(source: str) -> set[str]:
    """Dotted names of all that is imported, modules and what is taken from them."""
    names: set[str] = set()
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@cache
def imported(module: str) -> frozenset[str]:
    """Modules of tui that one imports."""
    found = set()
    for name in imports(MODULES[module].read_text("utf-8")):
        parent = name.rpartition(".")[0]
        found.update({name} if name in MODULES else {parent} & set(MODULES))
    return frozenset(found - {module})


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_imports_are_seen() -> None:
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from tui.app import app\n"
        "def f():\n    from tui.export import html\n    import tui.cli\n"
    )
    assert imports(source) == {"typing.TYPE_CHECKING", "tui.export.html", "tui.cli"}
    assert "tui.app.app" in imported("tui.app.start")


def test_all_rooms_are_told_of() -> None:
    assert {room_of(module) for module in MODULES} - {""} == set(MAY_IMPORT)
    assert tuple(TopologicalSorter(MAY_IMPORT).static_order())


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_lower_ones(module: str) -> None:
    room = room_of(module)
    others = {room_of(name) for name in imported(module)} - {room, ""}
    assert others <= MAY_IMPORT.get(room, set())


def test_no_module_imports_itself_by_detours() -> None:
    try:
        TopologicalSorter({module: imported(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize(
    "module", [m for m in MODULES if room_of(m) not in ("app", "widgets", "terminal")]
)
def test_textual_stays_where_a_screen_is_drawn(module: str) -> None:
    named = {name.partition(".")[0] for name in imports(MODULES[module].read_text("utf-8"))}
    drawn = module in TEXTUAL.get(room_of(module), set())
    assert ("textual" in named) == drawn


@pytest.mark.parametrize("module", [m for m, path in MODULES.items() if path.name == "__init__.py"])
def test_a_room_says_what_it_is_in_three_sentences(module: str) -> None:
    text = ast.get_docstring(ast.parse(MODULES[module].read_text("utf-8"))) or ""
    words = " ".join(text.split())
    assert "\n\n" in text, "what lives there, then what it may import and where to begin"
    assert "import" in text
    assert "Begin with `tui." in words


@pytest.mark.parametrize("module", MODULES)
def test_what_a_docstring_names_is_there(module: str) -> None:
    text = MODULES[module].read_text("utf-8")
    names = set(re.findall(r"`tui((?:\.\w+)+)`", text))
    assert [name for name in names if pkgutil.resolve_name(f"tui{name}") is None] == []


def test_files_and_controllers_are_short() -> None:
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name for name, lines in lengths.items() if lines > 400} == set()
    controllers = {name for name in MODULES if name.startswith("tui.app.controllers.")}
    assert len(controllers) > 5
    assert {name for name in controllers if lengths[name] >= 300} == set()
