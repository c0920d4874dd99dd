# SPDX-License-Identifier: Apache-2.0
"""The agent's rooms: which may import which, and who may import which library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT

AGENT = ROOT / "tui" / "agent"
LAYERS = (
    ("errors", "malloc_trim", "options", "owner_token", "sd_notify"),
    ("state",),
    ("metrics",),
    ("http",),
    ("setup",),
    ("service",),
    ("command",),
)
"""Rooms and modules from the lowest; each imports those of its own layer and below."""
LIBRARIES = {"starlette": "http", "uvicorn": "http", "h11": "http", "prometheus_client": "metrics"}


def room(module: str) -> str:
    """The room, or the module outside of rooms, that tui.agent.X.Y is in: X."""
    return module.split(".")[2]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports when it runs, lazily too, but not for its types alone."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "tui.agent":
            yield from (f"tui.agent.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


FILES = sorted(path for path in AGENT.rglob("*.py") if path != AGENT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(AGENT)))
def test_imports_go_downwards(path: Path) -> None:
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    here = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for module in imports(path):
        if module.startswith("tui.agent."):
            assert rank[room(module)] <= rank[here], module
        library = module.partition(".")[0]
        assert LIBRARIES.get(library, here) == here, module
