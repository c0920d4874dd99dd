# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: read from the source, so that lazy imports count as well."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

LOADER = ROOT / "probes" / "bpf" / "compiler.py"
PROBES = sorted((ROOT / "probes").rglob("*.py"))
EVERYTHING = sorted(
    path for top in ("probes", "tui", "bench") for path in (ROOT / top).rglob("*.py")
)


def imported(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def test_imports_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    import bcc.table\n    from tui.app.app import App\n")
    assert imported(file) == {"bcc", "tui"}
    assert len(PROBES) > 5


@pytest.mark.parametrize("path", PROBES, ids=lambda path: path.name)
def test_probes_know_neither_tui_nor_textual(path: Path) -> None:
    assert not imported(path) & {"tui", "textual", "rich"}


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_loader_imports_bcc(path: Path) -> None:
    assert ("bcc" in imported(path)) == (path == LOADER)


def test_probes_import_without_bcc_and_textual() -> None:
    """Imports every module of probes where both are blocked."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in PROBES
        if path.name not in ("__init__.py", "__main__.py")
    ]
    program = (
        "import sys, importlib\n"
        "for name in ('bcc', 'textual', 'tui', 'rich'): sys.modules[name] = None\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
