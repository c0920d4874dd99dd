# SPDX-License-Identifier: Apache-2.0
"""Snapshots and recordings as `diff` reads them: whatever is in them is checked."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from probes.base import ProbeError
from probes.files import printable, unusable
from probes.recording import MAGIC, Reader
from probes.summary import LIMITS, VERSION
from tui.export.write import new_summarizer

MOST_BYTES = 64_000_000
"""A snapshot has far less; nobody's memory is filled with what is none."""
HIGHEST = 2.0**100
_DATA = re.compile(rb'<script type="application/json" id="probetop-data">(.*?)</script>', re.DOTALL)
_FIX = "give a snapshot (.html or .json) or a recording that probetop wrote"


class Figure(NamedTuple):
    """A number of a run: a rate, a percentile or a ratio, and how many events it rests on."""

    value: float
    events: float


class Key(NamedTuple):
    """What a figure is of: "syscall", "read", "errors/s"."""

    what: str
    item: str
    quantity: str


class Run(NamedTuple):
    """A run to be compared. `closed` are pairs (what, quantity) of which every item is there.

    `seconds` is by probe for how long it ran; probes that did not are absent.
    """

    path: str
    head: dict[str, Any]
    seconds: dict[str, float]
    figures: dict[Key, Figure]
    closed: frozenset[str]
    damage: str | None = None


class _Damaged(ValueError):
    """The file is not what it says."""


def load(path: str) -> Run:
    """A run; raises ProbeError unless the file is one that this version understands."""
    name = printable(path)
    damage = None
    try:
        if _begins(path).startswith(MAGIC):
            summary, damage = _summed_up(path)
        else:
            summary = _parsed(_content(path), name)
        return Run(path, *_checked(summary), damage)
    except OSError as error:
        raise unusable("read", path, error) from error
    except (_Damaged, RecursionError, OverflowError, UnicodeDecodeError) as error:
        raise ProbeError(f"{name} is damaged, or no snapshot", _FIX) from error


def _begins(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(fd, len(MAGIC), 0)
    finally:
        os.close(fd)


def _content(path: str) -> bytes:
    if Path(path).stat().st_size > MOST_BYTES:
        raise _Damaged
    return Path(path).read_bytes()


def _summed_up(path: str) -> tuple[Any, str | None]:
    summarizer = new_summarizer()
    with closing(Reader(path)) as reader:
        for frame in reader:
            summarizer.add(frame)
        damage = reader.damage
    if summarizer.frames < 2:
        why = f"{printable(path)} has no interval to compare"
        raise ProbeError(f"{why}; {damage}" if damage else why, "record for longer")
    return summarizer.summary(LIMITS), damage


def _parsed(content: bytes, name: str) -> Any:
    if content.lstrip()[:1] == b"<":
        found = _DATA.search(content)
        if found is None:
            raise ProbeError(f"{name} is not a page of probetop's", _FIX)
        content = found[1]
    try:
        summary = json.loads(content)
    except ValueError as error:
        raise _Damaged from error
    if not isinstance(summary, dict) or "summary" not in summary:
        raise ProbeError(f"{name} is not a snapshot", _FIX)
    if summary["summary"] != VERSION:
        version = ascii(summary["summary"])[:20]
        why = f"{name} is a snapshot of version {version}, not {VERSION}"
        raise ProbeError(why, "compare it with the version of probetop that wrote it")
    return summary


# -- what is in it ------------------------------------------------------------------------


def _number(row: Any, name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Damaged
    if not (math.isfinite(value) and abs(value) < HIGHEST):
        raise _Damaged
    return float(value)


def _count(row: Any, name: str) -> float:
    """A number that must be there and is not below zero."""
    value = _number(row, name)
    if value is None or value < 0:
        raise _Damaged
    return value


def _text(row: Any, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise _Damaged
    return value


def _object(row: Any, name: str) -> dict[str, Any]:
    value = row.get(name)
    if not isinstance(value, dict):
        raise _Damaged
    return value


def _rows(probe: Any, name: str) -> Iterator[dict[str, Any]]:
    rows = probe.get(name)
    if rows is None:
        return
    if not isinstance(rows, list):
        raise _Damaged
    for row in rows:
        if not isinstance(row, dict):
            raise _Damaged
        yield row


def _checked(
    summary: Any,
) -> tuple[dict[str, Any], dict[str, float], dict[Key, Figure], frozenset[str]]:
    """The head of a run, how long each probe ran, its figures, and what is complete of it."""
    head: dict[str, Any] = {name: _text(summary, name) for name in ("host", "release", "arch")}
    head |= {name: _count(summary, name) for name in ("begin", "end", "seconds")}
    if head["end"] > 1e11:
        raise _Damaged
    filters = _object(summary, "filters")
    head["filters"] = " ".join([f"{name}={value}" for name, value in sorted(filters.items())])
    seconds: dict[str, float] = {}
    figures: dict[Key, Figure] = {}
    closed: set[str] = set()
    probes = _object(summary, "probes")
    takers = {"syscalls": _syscalls, "execs": _execs, "latency": _latency, "pmc": _pmc}
    for name, take in takers.items():
        probe = probes.get(name)
        if probe is None:
            continue
        if not isinstance(probe, dict):
            raise _Damaged
        ran = _number(probe, "seconds")
        if ran is None or ran <= 0:
            continue
        seconds[name] = ran
        take(probe, ran, figures)
        others = _object(probe, "others")
        closed |= {what for what, table in _TABLES[name].items() if table not in others}
    return head, seconds, figures, frozenset(closed)


_TABLES = {
    "syscalls": {"syscall": "rows"},
    "execs": {"program": "programs"},
    "latency": {},
    "pmc": {"process": "processes"},
}
"""The table of a probe's summary that a kind of item is from, unless all are always there."""


def _rate(figures: dict[Key, Figure], key: Key, count: float, seconds: float) -> None:
    """A rate; those of the same name (processes) are added up."""
    old = figures.get(key, Figure(0.0, 0.0))
    figures[key] = Figure(old.value + count / seconds, old.events + count)


def _percentiles(figures: dict[Key, Figure], what: str, item: str, row: Any, n: float) -> None:
    for name in ("p50", "p99"):
        value = _number(row, name)
        if value is not None:
            figures[Key(what, item, name)] = Figure(max(0.0, value), n)


def _syscalls(probe: Any, seconds: float, figures: dict[Key, Figure]) -> None:
    for row in _rows(probe, "rows"):
        name, count = _text(row, "syscall"), _count(row, "count")
        _rate(figures, Key("syscall", name, "calls/s"), count, seconds)
        _rate(figures, Key("syscall", name, "errors/s"), _count(row, "errors"), seconds)
        _percentiles(figures, "syscall", name, row, count)


def _execs(probe: Any, seconds: float, figures: dict[Key, Figure]) -> None:
    for row in _rows(probe, "programs"):
        name = _text(row, "program")
        for quantity, field in (
            ("starts/s", "starts"),
            ("not found/s", "failed"),
            ("exit code not 0/s", "nonzero"),
            ("killed/s", "killed"),
        ):
            _rate(figures, Key("program", name, quantity), _count(row, field), seconds)


def _latency(probe: Any, seconds: float, figures: dict[Key, Figure]) -> None:
    for row in _rows(probe, "targets"):
        spec, count = _text(row, "spec"), _number(row, "count")
        if count is None:
            continue
        if count < 0:
            raise _Damaged
        _rate(figures, Key("target", spec, "calls/s"), count, seconds)
        _percentiles(figures, "target", spec, row, count)


def _pmc(probe: Any, seconds: float, figures: dict[Key, Figure]) -> None:
    sums: dict[str, list[float]] = {}
    for row in _rows(probe, "processes"):
        name = _text(row, "comm")
        clock = _count(row, "task_clock")
        total = sums.setdefault(name, [0.0, 0.0])
        _rate(figures, Key("process", name, "% of a CPU"), clock / 1e7, seconds)
        cycles, instructions = _number(row, "cycles"), _number(row, "instructions")
        if cycles and instructions is not None:
            total[0] += cycles
            total[1] += instructions
    for name, (cycles, instructions) in sums.items():
        if cycles > 0:
            figures[Key("process", name, "IPC")] = Figure(instructions / cycles, cycles)
    busy = idle = 0.0
    for row in _rows(probe, "cpus"):
        busy += _count(row, "busy")
        idle += _count(row, "idle")
    if busy + idle > 0:
        figures[Key("machine", "all CPUs", "% busy")] = Figure(100 * busy / (busy + idle), busy)
