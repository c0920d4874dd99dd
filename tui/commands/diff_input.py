# SPDX-License-Identifier: Apache-2.0
"""Snapshots and recordings as `diff` reads them.

Of a snapshot only what is compared is decoded, into objects of stated types and ranges; a file
that has anything else there is refused in one line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from math import isfinite
from multiprocessing import get_context
from typing import Annotated, Any, NamedTuple, cast

import msgspec
from msgspec import Meta, Raw, Struct, convert

from probes.base import ProbeError
from probes.counter_tables import Unusual
from probes.estimates import student
from probes.files import open_regular, printable, read_regular, unusable
from probes.model import SHORTEST
from probes.recording import MAGIC, Reader
from probes.summary import LIMITS, VERSION, probe_object, whole
from probes.totals import totals
from tui.export.write import new_summarizer
from tui.registry import REGISTRY
from tui.shared.gc_pause import gc_paused

MOST_BYTES = 8_000_000
"""Of a snapshot: what `probetop snapshot` writes has at most an eighth of it."""
LARGE = 500_000
"""Bytes of a file that another process reads, which takes 20 ms to start."""
TINY = 1e-9
MANY = student(1_000)
"""What the standard error of many bursts is multiplied by, for an interval of confidence."""
_DATA, _END = b'<script type="application/json" id="probetop-data">', b"</script>"
_FIX = "give a snapshot (.html or .json) or a recording that probetop wrote"


class Figure(NamedTuple):
    """A number of a run: a rate, a percentile or a ratio, and how many events it rests on.

    `error` is the standard error of the events, as far as they are estimated from bursts.
    """

    value: float
    events: float
    error: float = 0.0


class Key(NamedTuple):
    """What a figure is of: "syscall", "read", "errors/s"."""

    what: str
    item: str
    quantity: str


class Run(NamedTuple):
    """A run to be compared. `closed` are pairs (what, quantity) of which every item is there.

    `seconds` is by probe for how long it ran; probes that did not are absent. `estimated` is for
    how many of them it was attached in bursts, or looked for failing executions in those.
    """

    path: str
    head: dict[str, Any]
    seconds: dict[str, float]
    figures: dict[Key, Figure]
    closed: frozenset[str]
    damage: str | None = None
    estimated: Mapping[str, float] = {}


# -- what of a summary is compared, see `probes.summary` ------------------------------------

Number = Annotated[float, Meta(ge=-(2.0**100), le=2.0**100)]
NotNegative = Annotated[float, Meta(ge=0.0, le=2.0**100)]
Text = Annotated[str, Meta(max_length=100_000)]
Others = Annotated[dict[str, dict[str, Number | None]], Meta(max_length=100)]


class _Duty(Struct):
    seconds: NotNegative
    factor: NotNegative


class _Call(Struct):
    syscall: Text
    count: NotNegative
    errors: NotNegative
    error: NotNegative | None = 0.0
    errors_error: NotNegative | None = 0.0
    p50: Number | None = None
    p99: Number | None = None


class _Syscalls(Struct):
    seconds: Number | None = None
    duty: _Duty | None = None
    rows: list[_Call] | None = None
    others: Others = {}


class _Program(Struct):
    program: Text
    starts: NotNegative
    failed: NotNegative
    nonzero: NotNegative
    killed: NotNegative


class _Execs(Struct):
    seconds: Number | None = None
    failed_duty: _Duty | None = None
    programs: list[_Program] | None = None
    others: Others = {}


class _Target(Struct):
    spec: Text
    count: NotNegative | None = None
    error: NotNegative | None = 0.0
    duty: _Duty | None = None
    p50: Number | None = None
    p99: Number | None = None


class _Latency(Struct):
    seconds: Number | None = None
    targets: list[_Target] | None = None
    others: Others = {}


class _Process(Struct):
    comm: Text
    task_clock: NotNegative
    cycles: Number | None = None
    instructions: Number | None = None
    error: Annotated[dict[Text, NotNegative | None], Meta(max_length=200)] = {}


class _Cpu(Struct):
    busy: NotNegative
    idle: NotNegative


class _Pmc(Struct):
    seconds: Number | None = None
    duty: _Duty | None = None
    processes: list[_Process] | None = None
    cpus: list[_Cpu] | None = None
    others: Others = {}


class _Probes(Struct):
    syscalls: _Syscalls | None = None
    execs: _Execs | None = None
    latency: _Latency | None = None
    pmc: _Pmc | None = None


class _Summary(Struct):
    host: Text
    release: Text
    arch: Text
    begin: Annotated[float, Meta(ge=0.0, le=1e11)]
    end: Annotated[float, Meta(ge=0.0, le=1e11)]
    seconds: Annotated[float, Meta(ge=0.0, le=1e11)]
    filters: Annotated[dict[str, Text | int], Meta(max_length=100)]
    probes: _Probes


class _Version(Struct):
    """Whether it is a summary, and of which version of its shape."""

    summary: Raw


# -- reading --------------------------------------------------------------------------------


def load(path: str) -> Run:
    """A run; raises ProbeError unless the file is one that this version understands."""
    name = printable(path)
    damage = None
    try:
        if _begins(path).startswith(MAGIC):
            object_, damage = _summed_up(path)
            summary = convert(object_, _Summary)
        else:
            summary = _parsed(read_regular(path, MOST_BYTES), name)
        return Run(path, *_figures(summary), damage, _estimated(summary.probes))
    except OSError as error:
        raise unusable("read", path, error) from error
    except (ValueError, RecursionError, OverflowError) as error:
        raise ProbeError(f"{name} is damaged, or no snapshot", _FIX) from error


def load_both(a_path: str, b_path: str) -> tuple[Run, Run]:
    """Two runs, at the same time where both are large; raises ProbeError, of the first one."""
    if min(map(_size, (a_path, b_path))) < LARGE:
        return load(a_path), load(b_path)
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        found = pool.submit(load, a_path)
        b = error = None
        try:
            b = load(b_path)
        except ProbeError as refused:
            error = refused
        a = found.result()
    if b is None:
        raise cast(ProbeError, error)
    return a, b


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0


def _begins(path: str) -> bytes:
    fd = open_regular(path)
    try:
        return os.pread(fd, len(MAGIC), 0)
    finally:
        os.close(fd)


def _summed_up(path: str) -> tuple[Any, str | None]:
    try:
        return _totalled(path), None
    except Unusual:
        return _added_up(path)


def _totalled(path: str) -> Any:
    """What is compared of a summary, of a recording as a run writes it; else raises Unusual."""
    with gc_paused():
        found = totals(path)
    sums = found.sums()
    filters = found.filters._asdict()
    probes = {}
    for entry in REGISTRY:
        if entry.name in sums:  # of other probes nothing is compared
            kind, total = entry.probe_class(), sums[entry.name]
            probes[entry.name] = probe_object(kind, total, *whole(kind, total), LIMITS)
    return {
        "host": found.host.name,
        "release": found.host.release,
        "arch": found.host.arch,
        "begin": found.begin,
        "end": found.end,
        "seconds": found.seconds,
        "filters": {name: value for name, value in filters.items() if value is not None},
        "probes": probes,
    }


def _added_up(path: str) -> tuple[Any, str | None]:
    """The summary of any recording, and what could not be read of it."""
    summarizer = new_summarizer()
    with closing(Reader(path)) as reader, gc_paused():
        for frame in reader:
            summarizer.add(frame)
        damage = reader.damage
    if summarizer.frames < 2:
        why = f"{printable(path)} has no interval to compare"
        raise ProbeError(f"{why}; {damage}" if damage else why, "record for longer")
    return summarizer.summary(LIMITS), damage


def _parsed(content: bytes, name: str) -> _Summary:
    """The summary of a snapshot; raises ValueError or RecursionError where it is damaged."""
    if content.lstrip()[:1] == b"<":
        start = content.find(_DATA)
        end = content.find(_END, start)
        if start < 0 or end < 0:
            raise ProbeError(f"{name} is not a page of probetop's", _FIX)
        content = content[start + len(_DATA) : end]
    try:
        version = msgspec.json.decode(content, type=_Version).summary
    except msgspec.ValidationError:
        raise ProbeError(f"{name} is not a snapshot", _FIX) from None
    if bytes(version) != b"%d" % VERSION:
        word = ascii(bytes(version)[:20].decode("ascii", "replace"))
        why = f"{name} is a snapshot of version {word}, not {VERSION}"
        raise ProbeError(why, "compare it with the version of probetop that wrote it")
    return msgspec.json.decode(content, type=_Summary)


# -- what is in it ------------------------------------------------------------------------


def _figures(
    summary: _Summary,
) -> tuple[dict[str, Any], dict[str, float], dict[Key, Figure], frozenset[str]]:
    """The head of a run, how long each probe ran, its figures, and what is complete of it."""
    names = ("host", "release", "arch", "begin", "end", "seconds")
    head: dict[str, Any] = {name: getattr(summary, name) for name in names}
    filters = sorted(summary.filters.items())
    head["filters"] = " ".join([f"{name}={value}" for name, value in filters])
    seconds: dict[str, float] = {}
    figures: dict[Key, Figure] = {}
    closed: set[str] = set()
    takers: dict[str, Callable[[Any, float, dict[Key, Figure]], None]] = {
        "syscalls": _syscalls, "execs": _execs, "latency": _latency, "pmc": _pmc,
    }  # fmt: skip
    for name, take in takers.items():
        probe = getattr(summary.probes, name)
        if probe is None or probe.seconds is None or not probe.seconds >= SHORTEST:
            continue
        seconds[name] = probe.seconds
        take(probe, probe.seconds, figures)
        closed |= {what for what, table in _TABLES[name].items() if table not in probe.others}
    figures = {key: figure for key, figure in figures.items() if isfinite(figure.value)}
    # Nothing is divided by what is next to nothing.
    for key, figure in figures.items():
        if figure.value < TINY:
            figures[key] = figure._replace(value=0.0)
    return head, seconds, figures, frozenset(closed)


_TABLES = {
    "syscalls": {"syscall": "rows"},
    "execs": {"program": "programs"},
    "latency": {},
    "pmc": {"process": "processes"},
}
"""The table of a probe's summary that a kind of item is from, unless all are always there."""


def _rate(
    figures: dict[Key, Figure], key: Key, count: float, seconds: float, error: float = 0.0
) -> None:
    """A rate; those of the same name (processes) are added up."""
    old = figures.get(key, Figure(0.0, 0.0))
    figures[key] = Figure(old.value + count / seconds, old.events + count, old.error + error)


def _estimated(probes: _Probes) -> dict[str, float]:
    """For how many seconds each probe was attached in bursts, where it was."""
    targets = probes.latency.targets if probes.latency is not None else None
    found: dict[str, list[_Duty | None]] = {
        "syscalls": [probes.syscalls.duty if probes.syscalls is not None else None],
        "execs": [probes.execs.failed_duty if probes.execs is not None else None],
        "latency": [target.duty for target in targets or ()],
        "pmc": [probes.pmc.duty if probes.pmc is not None else None],
    }
    seconds = {name: [one.seconds for one in duties if one] for name, duties in found.items()}
    return {name: max(some) for name, some in seconds.items() if some}


def _error(count: float, error: float | None, duty: _Duty | None) -> float:
    """A standard error as it were of many bursts: that of few is uncertain itself.

    One that is not known is taken to be as large as the count.
    """
    if duty is None:
        return 0.0
    return (count if error is None else error) * max(1.0, duty.factor / MANY)


def _percentiles(figures: dict[Key, Figure], what: str, item: str, row: _Call | _Target) -> None:
    for name, value in (("p50", row.p50), ("p99", row.p99)):
        if value is not None:
            figures[Key(what, item, name)] = Figure(max(0.0, value), row.count or 0.0)


def _syscalls(probe: _Syscalls, seconds: float, figures: dict[Key, Figure]) -> None:
    for row in probe.rows or ():
        error = _error(row.count, row.error, probe.duty)
        errors_error = _error(row.errors, row.errors_error, probe.duty)
        _rate(figures, Key("syscall", row.syscall, "calls/s"), row.count, seconds, error)
        _rate(figures, Key("syscall", row.syscall, "errors/s"), row.errors, seconds, errors_error)
        _percentiles(figures, "syscall", row.syscall, row)


def _execs(probe: _Execs, seconds: float, figures: dict[Key, Figure]) -> None:
    for row in probe.programs or ():
        for quantity, count in (
            ("starts/s", row.starts),
            ("not found/s", row.failed),
            ("exit code not 0/s", row.nonzero),
            ("killed/s", row.killed),
        ):
            # What bursts saw of failing ones is told, but not how many of a program there were.
            if quantity == "not found/s" and probe.failed_duty is not None:
                continue
            _rate(figures, Key("program", row.program, quantity), count, seconds)


def _latency(probe: _Latency, seconds: float, figures: dict[Key, Figure]) -> None:
    for row in probe.targets or ():
        if row.count is not None:
            error = _error(row.count, row.error, row.duty)
            _rate(figures, Key("target", row.spec, "calls/s"), row.count, seconds, error)
            _percentiles(figures, "target", row.spec, row)


def _pmc(probe: _Pmc, seconds: float, figures: dict[Key, Figure]) -> None:
    sums: dict[str, list[float]] = {}
    for row in probe.processes or ():
        total = sums.setdefault(row.comm, [0.0, 0.0])
        error = _error(row.task_clock, row.error.get("task_clock", 0.0), probe.duty) / 1e7
        key = Key("process", row.comm, "% of a CPU")
        _rate(figures, key, row.task_clock / 1e7, seconds, error)
        if row.cycles and row.instructions is not None:
            total[0] += row.cycles
            total[1] += row.instructions
    for name, (cycles, instructions) in sums.items():
        # One is the least that can be counted; a quotient by less may be more than any number.
        if cycles >= 1:
            figures[Key("process", name, "IPC")] = Figure(instructions / cycles, cycles)
    busy = sum([cpu.busy for cpu in probe.cpus or ()])
    idle = sum([cpu.idle for cpu in probe.cpus or ()])
    if busy + idle > 0:
        figures[Key("machine", "all CPUs", "% busy")] = Figure(100 * busy / (busy + idle), busy)
