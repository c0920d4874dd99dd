# SPDX-License-Identifier: Apache-2.0
"""A target that fails costs its own row, and a file is what it was when it was opened."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from probes.ipc.messages import MessageError
from probes.latency import planner
from probes.latency.probe import LatencyProbe
from probes.latency.requests import wishes_of
from probes.symbols import functions
from tests.unit.elf_file import CODE_AT, FUNC, GLOBAL, ElfFile


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, str]:
    """Paths of what is no program to read."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "unreadable").touch(0o000)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "empty").touch()
    names = {name: str(tmp_path / name) for name in ("fifo", "socket", "loop", "empty")}
    proc = ("/proc/self/mem", "/proc/kcore", "/proc/kmsg", "/dev/zero", "/dev/tty", "/dev/ptmx")
    return {**names, "folder": str(tmp_path), **{path: path for path in proc}}


def test_one_bad_target_costs_its_own_row_only(hostile: dict[str, str]) -> None:
    bad: list[Any] = [f"uprobe:{path}:x" for path in hostile.values()]
    bad += [f"usdt:{path}:p:n" for path in hostile.values()]
    bad += [f"uprobe:/{'a' * 5000}:x", f"uprobe:/{'a/' * 5000}:x", "uprobe:/a\0b:x"]
    bad += ["uprobe:/\ud800:x", "uprobe:/proc/999999/root/x:f"]
    found = wishes_of({"targets": ["runq", *bad, "softirq"]})
    assert [one["spec"] for one in found.targets] == ["runq", "softirq"]
    assert len(found.errors) == len(bad)
    for text, why, fix in found.errors:
        assert text.encode()
        assert why.isprintable()
        assert "\n" not in why + fix
    assert [why for _, why, _ in found.errors if "preparing it failed" in why] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"targets": [5]},
        {"targets": [None]},
        {"targets": [["runq"]]},
        {"targets": "runq"},
        {"targets": {}},
        {},
        {"targets": [], "counted": 5},
        *({"targets": [], "pid": pid} for pid in ("../tmp/x", -1, 1 << 40, True, [1], 1.5)),
        {"targets": [], "started": "now"},
    ],
)
def test_parameters_of_other_types_are_refused_before_a_file_is_looked_at(
    wrong: dict[str, Any],
) -> None:
    with pytest.raises(MessageError):
        wishes_of(wrong)


def test_what_surprises_the_reader_is_the_row_of_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(ElfFile(symtab=[("f", FUNC, GLOBAL, 0, 8)]).build())

    def surprise(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(functions, "functions", surprise)
    plan = LatencyProbe.plan({"targets": [f"uprobe:{tmp_path}/x:f", "runq"], "pid": None})
    assert [target["spec"] for target in plan.facts["targets"]] == ["runq"]
    assert "preparing it failed (MemoryError)" in plan.facts["errors"][0][1]


def test_files_that_take_long_leave_time_for_other_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(f"f{n}", FUNC, GLOBAL, 0, 8) for n in range(3)]
    (tmp_path / "x").write_bytes(ElfFile(symtab=list(rows)).build())
    clock = itertools.count(0.0, 1.0)
    monkeypatch.setattr("probes.host.file_access.time.monotonic", lambda: next(clock))
    found = wishes_of({"targets": [f"uprobe:{tmp_path}/x:f1", "runq"]})
    assert [one["spec"] for one in found.targets] == ["runq"]
    assert "takes too long" in found.errors[0][1]


def two_programs(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two programs whose function is at different places, and a link to the first."""
    paths = tmp_path / "mine", tmp_path / "theirs", tmp_path / "link"
    for path, place in zip(paths[:2], (0x10, 0x200), strict=True):
        path.write_bytes(ElfFile(symtab=[("f", FUNC, GLOBAL, place, 16)]).build())
    paths[2].symlink_to(paths[0])
    return paths


def flip(link: Path, to: Path) -> None:
    link.with_suffix(".new").symlink_to(to)
    os.replace(link.with_suffix(".new"), link)


def attached(made: planner.Wish) -> tuple[str, int]:
    (place,) = {(os.path.realpath(a.path), a.offset) for a in made.attach if a.path}
    return place


def test_a_link_that_turns_between_reading_and_attaching_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs, link = two_programs(tmp_path)
    real = functions.functions

    def turning(*arguments: Any) -> Any:
        flip(link, theirs)
        found = real(*arguments)
        flip(link, mine)
        flip(link, theirs)
        return found

    monkeypatch.setattr(functions, "functions", turning)
    made = planner.wish(f"uprobe:{link}:f", 0)
    assert attached(made) == (str(mine), CODE_AT + 0x10)
    os.unlink(mine)
    (file,) = {a.path for a in made.attach if a.path}
    assert Path(file).read_bytes()[:4] == b"\x7fELF"


def test_a_link_that_never_stops_turning_leads_to_one_of_both(tmp_path: Path) -> None:
    mine, theirs, link = two_programs(tmp_path)
    fits = {(str(mine), CODE_AT + 0x10), (str(theirs), CODE_AT + 0x200)}
    stop = threading.Event()

    def turn() -> None:
        while not stop.is_set():
            flip(link, theirs)
            flip(link, mine)

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        seen = {attached(planner.wish(f"uprobe:{link}:f", 0)) for _ in range(300)}
    finally:
        stop.set()
        thread.join()
    assert seen <= fits
    assert seen


def test_the_file_of_a_place_stays_open_as_long_as_it_may_be_attached(tmp_path: Path) -> None:
    mine, _, link = two_programs(tmp_path)
    before = set(os.listdir("/proc/self/fd"))
    made = planner.wish(f"uprobe:{link}:f", 0)
    assert len(set(os.listdir("/proc/self/fd")) - before) == 1
    assert attached(made)[0] == str(mine)
    del made
    assert set(os.listdir("/proc/self/fd")) == before
