# SPDX-License-Identifier: Apache-2.0
"""CONTRIBUTING.md names what exists, and pre-commit runs the static checks of test.sh."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import pytest

from tests.paths import ROOT
from tui.registry import REGISTRY

yaml: Any = import_module("yaml")
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
TABLE = PAGE.partition("## Where is what")[2].partition("\n## ")[0]
TUTORIAL = PAGE.partition("## Add a probe")[2].partition("\n## ")[0]


def test_pre_commit_runs_what_test_sh_checks() -> None:
    script = (ROOT / "test.sh").read_text("utf-8")
    dirs = re.search(r"^for dir in (.+); do$", script, re.MULTILINE)
    assert dirs is not None
    checks = {
        name: f".venv/bin/{tool} {arguments} {dirs[1]}".replace("  ", " ")
        for name, tool, arguments in re.findall(
            r'^check "([^"$]+)" "\$venv/bin/(\w+)" (.*)"\$\{dirs\[@\]\}"$', script, re.MULTILINE
        )
    }
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    hooks = {hook["name"]: hook["entry"] for repo in config["repos"] for hook in repo["hooks"]}
    assert len(checks) > 2
    assert hooks == checks


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w./]+\.(?:py|c|h|sh|md))`", TABLE))))
def test_files_of_the_table_exist(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize(
    ("path", "name"), sorted(set(re.findall(r"`(\w+(?:/\w+)*\.py)`: `(\w+)`", TABLE)))
)
def test_names_of_the_table_are_defined(path: str, name: str) -> None:
    module = import_module(path.removesuffix(".py").replace("/", "."))
    assert hasattr(module, name)


def test_the_table_names_more_than_files() -> None:
    assert len(re.findall(r"`(\w+(?:/\w+)*\.py)`: `(\w+)`", TABLE)) > 9


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.name)
def test_the_places_of_the_tutorial_name_each_probe(entry: Any) -> None:
    """Where a probe is named outside of its own modules, each of those here is named as well."""
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", TUTORIAL, re.MULTILINE)
    assert len(listed) > 4
    for path in listed:
        assert f'"{entry.name}"' in (ROOT / path).read_text("utf-8"), path
