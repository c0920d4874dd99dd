# SPDX-License-Identifier: Apache-2.0
"""Snapshots and recordings as `diff` reads them.

Of a snapshot only what is compared is decoded, into objects of stated types and ranges; a file
that has anything else there is refused in one line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import cache
from multiprocessing import get_context
from typing import Annotated, Any, NamedTuple, cast

import msgspec
from msgspec import Meta, Raw, Struct, convert, defstruct

from probes.core.delta import SHORTEST
from probes.core.errors import ProbeError
from probes.core.schema import Schema
from probes.host.files import open_regular, printable, read_regular, unusable
from probes.recording.file import MAGIC, Reader
from probes.report.recording_totals import totals
from probes.report.summary import VERSION, probe_object, whole
from probes.sums.counter_tables import Unusual
from probes.sums.summary_limits import LIMITS
from tui.commands.figures import Figure, Key, Text, closed_of, estimated_of, figures_of, probe_type
from tui.export.write import new_summarizer
from tui.registry import REGISTRY
from tui.shared.gc_pause import gc_paused

MOST_BYTES = 8_000_000
"""Of a snapshot: what `probetop snapshot` writes has at most an eighth of it."""
LARGE = 500_000
"""Bytes of a file that another process reads, which takes 20 ms to start."""
_DATA, _END = b'<script type="application/json" id="probetop-data">', b"</script>"
_FIX = "give a snapshot (.html or .json) or a recording that probetop wrote"


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


# -- what of a summary is compared, see `probes.report.summary` ------------------------------------


def schemas() -> dict[str, Schema]:
    """The schemas of all probes, by name."""
    return {entry.name: entry.sample_class().schema for entry in REGISTRY}


@cache
def _type_of(*names: str) -> type[Any]:
    """The type of a summary that has these probes."""
    known = schemas()
    probes = [(name, probe_type(name, known[name]) | None, None) for name in names]
    fields: list[tuple[str, Any]] = [
        *[(name, Text) for name in ("host", "release", "arch")],
        *[(name, Annotated[float, Meta(ge=0.0, le=1e11)]) for name in ("begin", "end", "seconds")],
        ("filters", Annotated[dict[str, Text | int], Meta(max_length=100)]),
        ("probes", defstruct("Probes", probes)),
    ]
    return defstruct("Summary", fields)


def summary_type() -> type[Any]:
    """The type of what of a summary is compared; all else is skipped."""
    return _type_of(*[entry.name for entry in REGISTRY])


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
            summary = convert(object_, summary_type())
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
        found = totals(path, {entry.name: entry.sample_class() for entry in REGISTRY})
    sums = found.sums()
    filters = found.filters._asdict()
    probes = {}
    for entry in REGISTRY:
        if entry.name in sums:  # others did not run: Frames would be added up
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


def _parsed(content: bytes, name: str) -> Any:
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
    return msgspec.json.decode(content, type=summary_type())


# -- what is in it ------------------------------------------------------------------------


def _figures(
    summary: Any,
) -> tuple[dict[str, Any], dict[str, float], dict[Key, Figure], frozenset[str]]:
    """The head of a run, how long each probe ran, its figures, and what is complete of it."""
    names = ("host", "release", "arch", "begin", "end", "seconds")
    head: dict[str, Any] = {name: getattr(summary, name) for name in names}
    filters = sorted(summary.filters.items())
    head["filters"] = " ".join([f"{name}={value}" for name, value in filters])
    seconds: dict[str, float] = {}
    figures: dict[Key, Figure] = {}
    closed: set[str] = set()
    for name, schema in schemas().items():
        probe = getattr(summary.probes, name)
        if probe is None or probe.seconds is None or not probe.seconds >= SHORTEST:
            continue
        seconds[name] = probe.seconds
        figures |= figures_of(probe, schema)
        closed |= closed_of(probe, schema)
    return head, seconds, figures, frozenset(closed)


def _estimated(probes: Any) -> dict[str, float]:
    """For how many seconds each probe was attached in bursts, where it was."""
    known = {name: getattr(probes, name) for name in schemas()}
    found = {
        name: estimated_of(known[name], schema)
        for name, schema in schemas().items()
        if known[name] is not None
    }
    return {name: seconds for name, seconds in found.items() if seconds}
