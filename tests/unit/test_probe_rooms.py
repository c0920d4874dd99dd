# SPDX-License-Identifier: Apache-2.0
"""The rooms of probes: imports go downwards only, and no module imports itself by detours.

Read from the source, so that imports within functions count as well, and those for types only.
"""

from __future__ import annotations

import ast
import pkgutil
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.paths import PROBES, ROOT

ORDER = (
    ("core",),
    ("ipc",),
    ("host",),
    ("bpf",),
    ("symbols",),
    ("uprobes",),
    ("budget",),
    ("probe", "source"),
    ("recording",),
    ("sums",),
    ("syscalls", "execs", "latency", "pmc"),
    ("broker",),
    ("report",),
    ("live",),
    ("remote",),
    ("doctor",),
)
"""Rooms and single modules, lower ones first. Those in one line know nothing of each other."""
FLOOR = {room: number for number, rooms in enumerate(ORDER) for room in rooms}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PROBES.rglob("*.py"))
    if path.parent.name != "data"
}
ROOMS = [name for name, path in MODULES.items() if path.name == "__init__.py"]


def imports(source: str) -> set[str]:
    """Modules of probes that a source imports, for types only as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            found |= {name if name in MODULES else name.rpartition(".")[0]} & MODULES.keys()
    return found


@cache
def imported(module: str) -> frozenset[str]:
    return frozenset(imports(MODULES[module].read_text("utf-8")) - {module})


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_imports_are_seen() -> None:
    source = "def f():\n    from probes.core import kernel\n    from probes.probe import Probe\n"
    assert imports(source) == {"probes.core.kernel", "probes.probe"}


def test_all_rooms_are_told_of() -> None:
    assert {room_of(module) for module in MODULES} - {""} == FLOOR.keys()


@pytest.mark.parametrize("module", [name for name in MODULES if name != "probes"])
def test_imports_go_downwards(module: str) -> None:
    floor, room = FLOOR[room_of(module)], room_of(module)
    upwards = {
        name
        for name in imported(module)
        if room_of(name) and room_of(name) != room and FLOOR[room_of(name)] >= floor
    }
    assert upwards == set()


def test_no_module_imports_itself_by_detours() -> None:
    try:
        TopologicalSorter({module: imported(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("module", ROOMS)
def test_a_room_says_what_it_is(module: str) -> None:
    """What lives there, then what it may import, and where to begin reading."""
    path = MODULES[module]
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    first, _, rest = text.partition("\n\n")
    assert first
    assert "import" in rest
    begin = re.search(r"Begin with ((?:`[\w.]+`[^`.]*)+)", " ".join(rest.split()))
    assert begin is not None
    for name in re.findall(r"`([\w.]+)`", begin[1]):
        last = name if name.endswith(".bpf.c") else f"{name.rpartition('.')[2]}.py"
        assert list(ROOT.rglob(f"probes/**/{last}")), name


@pytest.mark.parametrize("module", MODULES)
def test_what_a_docstring_names_is_there(module: str) -> None:
    text = MODULES[module].read_text("utf-8")
    names = set(re.findall(r"`probes((?:\.\w+)+)`", text))
    assert [name for name in names if pkgutil.resolve_name(f"probes{name}") is None] == []


def test_probes_know_nothing_of_each_other() -> None:
    (probes,) = [rooms for rooms in ORDER if "execs" in rooms]
    for module in MODULES:
        if room_of(module) in probes:
            assert {room_of(name) for name in imported(module)} & set(probes) <= {room_of(module)}
