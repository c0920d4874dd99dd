# SPDX-License-Identifier: Apache-2.0
"""Every BPF program is C that clang reads by itself, for x86_64 and for arm64, so clangd works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.paths import PROBES
from tests.tooling import compile_commands
from tests.tooling.compile_commands import ARM

SOURCES = sorted(str(path.relative_to(PROBES)) for path in PROBES.rglob("*.bpf.c"))

needs_clang = pytest.mark.skipif(
    shutil.which("clang") is None and "CI" not in os.environ, reason="clang is not installed"
)


@pytest.fixture(scope="module")
def commands() -> dict[str, list[str]]:
    return compile_commands.commands()


def complaints(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stderr if done.returncode or done.stderr else ""


@needs_clang
@pytest.mark.parametrize("arch", [(), ARM], ids=["x86_64", "arm64"])
@pytest.mark.parametrize("source", SOURCES)
def test_clang_reads_it(commands: dict[str, list[str]], source: str, arch: tuple[str, ...]) -> None:
    *flags, file = commands[source]
    macros = {flag.partition("=")[0] for flag in arch}
    kept = [flag for flag in flags if flag.partition("=")[0] not in macros]
    assert complaints([*kept, "-Werror", *arch, file]) == ""


@needs_clang
def test_a_mistake_is_found(commands: dict[str, list[str]], tmp_path: Path) -> None:
    *flags, file = commands[SOURCES[0]]
    wrong = tmp_path / Path(SOURCES[0]).name
    wrong.write_text(Path(file).read_text("utf-8") + "int wrong(void) { return no_such_map; }\n")
    assert "no_such_map" in complaints([*flags, str(wrong)])


def test_the_file_for_clangd_has_all_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_commands, "ROOT", tmp_path)
    assert compile_commands.main() == 0
    entries = json.loads((tmp_path / "compile_commands.json").read_text("utf-8"))
    assert sorted(entry["file"].removeprefix(f"{tmp_path}/probes/") for entry in entries) == SOURCES
    assert all("-fsyntax-only" in entry["arguments"] for entry in entries)
