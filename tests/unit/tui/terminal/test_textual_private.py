# SPDX-License-Identifier: Apache-2.0
"""Private parts of Textual: pinned, in one module, and there."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import textual

import tui
from tests.paths import ROOT
from tui.terminal import textual_private

ADAPTER = Path(textual_private.__file__)
FILES = sorted(path for path in (ROOT / "tui").rglob("*.py") if path != ADAPTER)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_names(path: Path, *, defined: bool) -> set[str]:
    """Private names of attributes and methods that a file defines, or that it uses."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Attribute) and (not defined or isinstance(node.ctx, ast.Store)):
            names.add(node.attr)
        elif defined and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif defined and isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if is_private(name)}


def of_textual() -> set[str]:
    """Private names of all of Textual."""
    folder = Path(textual.__file__).parent
    return {name for path in folder.rglob("*.py") for name in private_names(path, defined=True)}


def modules() -> Iterator[ModuleType]:
    """All modules of tui that can be imported."""
    for info in pkgutil.walk_packages(tui.__path__, "tui."):
        if not info.name.endswith("__main__") and info.name != textual_private.__name__:
            yield importlib.import_module(info.name)


def classes() -> list[type[Any]]:
    """Classes of tui, without those of the adapter."""
    found = (one for module in modules() for one in vars(module).values() if inspect.isclass(one))
    ours = {one for one in found if one.__module__.startswith("tui.")}
    return sorted(
        (one for one in ours if one.__module__ != textual_private.__name__),
        key=lambda one: one.__qualname__,
    )


def test_textual_is_pinned_exactly() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = [one for one in project["dependencies"] if one.startswith("textual")]
    assert pin == f"textual=={version('textual')}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_adapter_imports_private_modules(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("textual", "rich")):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            assert not [name for name in names if is_private(name)]


def test_only_the_adapter_uses_private_attributes() -> None:
    """A private name that a file uses is one that tui itself defines."""
    theirs = of_textual()
    assert {"_dirty_regions", "_compositor_refresh", "_display", "_timeout_time"} <= theirs
    ours = {name for path in FILES for name in private_names(path, defined=True)}
    for path in FILES:
        used = private_names(path, defined=False) & theirs - ours
        assert not used - {"_exit"}, path


def test_no_class_overrides_private_parts_but_in_the_adapter() -> None:
    """Neither knowingly nor because a later Textual has taken the same name."""
    checked = 0
    for kind in classes():
        bases = [base for base in kind.__mro__ if base.__module__.startswith("textual.")]
        theirs = {name for base in bases for name in vars(base) if is_private(name)}
        # These are made for each class anew, by Textual itself.
        own = {name for name in vars(kind) if is_private(name) and callable(vars(kind)[name])}
        clash = own & theirs - {"_decorated_handlers", "_merged_bindings"}
        assert not clash, (kind, clash)
        checked += bool(bases)
    assert checked > 10


@pytest.mark.parametrize(
    "kind", [textual_private.OpenDriver, textual_private.OpenScreen, textual_private.OpenApp]
)
def test_what_the_adapter_overrides_exists(kind: type[Any]) -> None:
    above = {name for base in kind.__mro__[1:] for name in vars(base)}
    above |= of_textual()
    own = {
        name
        for name, value in vars(kind).items()
        if is_private(name) and (inspect.isfunction(value) or isinstance(value, property))
    }
    assert own
    assert own <= above
