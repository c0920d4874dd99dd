# SPDX-License-Identifier: Apache-2.0
"""A summary's tables, as texts with the numbers behind them, for any way of showing them.

Nothing here is escaped: who shows it does that, the page by its template engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from probes.execlog import join_args, short_cgroup
from tui.shared.text import UNKNOWN, at_most, fmt_count, fmt_ns, fmt_percent, fmt_within

Row = Mapping[str, Any]


class Cell(NamedTuple):
    """What a cell shows, the number that it is sorted by, and its CSS class."""

    text: str
    value: float | None = None
    style: str = ""


class Column(NamedTuple):
    """A column's name, whether it holds numbers, what it means, and how a row fills it."""

    name: str
    number: bool
    hint: str
    cell: Callable[[Row], Cell]


class Table(NamedTuple):
    """A table of a page: `note` says what is missing from it, `tree` that rows are nested."""

    id: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    tree: bool = False


def clock(seconds: float, digits: int = 0) -> str:
    """The time of day of Unix seconds, in this process's time zone."""
    part = f"{seconds % 1:.{digits}f}"[1:] if digits else ""
    return time.strftime("%H:%M:%S", time.localtime(seconds)) + part


def text(name: str, field: str, hint: str = "") -> Column:
    """A column of texts."""

    def cell(row: Row) -> Cell:
        value = row.get(field)
        return Cell(UNKNOWN if value is None else str(value))

    return Column(name, False, hint, cell)


def plain(name: str, field: str, hint: str = "") -> Column:
    """A column of numbers that are names: process ids, CPUs."""

    def cell(row: Row) -> Cell:
        value = row.get(field)
        return Cell(UNKNOWN if value is None else str(value), value)

    return Column(name, True, hint, cell)


def number(
    name: str, field: str, hint: str = "", fmt: Callable[[float | None], str] = fmt_count,
    style: str = "",
) -> Column:  # fmt: skip
    """A column of counts or durations; `style` is that of values above zero."""

    def cell(row: Row) -> Cell:
        value = row.get(field)
        shown = _mark(row, field) + fmt(value)
        return Cell(shown, value, style if value else "zero" if value == 0 else "")

    return Column(name, True, hint, cell)


def _mark(row: Row, field: str) -> str:
    """What stands before a number that is estimated, at least in part."""
    estimated = row.get("estimated")
    if not estimated or not row[field]:
        return ""
    if isinstance(estimated, Mapping):
        # Some of its numbers are, and have an error each.
        return "~" if field in row["error"] else ""
    return "~" if field in ("count", "errors") else ""


def rate(name: str, field: str, seconds: float | None, style: str = "") -> Column:
    """A count divided by the time in which it was counted."""

    def cell(row: Row) -> Cell:
        value = row.get(field)
        per_second = None if value is None or not seconds else value / seconds
        shown = _mark(row, field) + fmt_count(per_second)
        return Cell(shown, per_second, style if value else "zero")

    return Column(name, True, "per second, over the time in which the probe ran", cell)


def within(duty: Mapping[str, Any] | None, field: str = "count") -> list[Column]:
    """How far off a number of a row may be, while a part of these is estimated."""
    if duty is None:
        return []
    times = duty["factor"]

    def cell(row: Row) -> Cell:
        error, value = row.get("error"), row[field]
        if isinstance(error, Mapping):
            error = error.get(field)
        if error is None:
            return Cell("?" if row.get("estimated") else "")
        return Cell(fmt_within(error * times, value), error * times / value if value else None)

    return [
        Column(
            "±",
            True,
            "the true number is so near, with 95 % confidence; ?: bursts do not tell",
            cell,
        )
    ]


def share(name: str, field: str, whole: float | str, hint: str) -> Column:
    """A count's share of a number, or of another field."""

    def cell(row: Row) -> Cell:
        value = row.get(field)
        total = row.get(whole) if isinstance(whole, str) else whole
        part = value / total if value is not None and total else None
        shown = _mark(row, field) + fmt_percent(value, total)
        return Cell(shown, part, "zero" if value == 0 else "")

    return Column(name, True, hint, cell)


def table(
    name: str, title: str, columns: Sequence[Column], rows: Iterable[Row],
    left: Mapping[str, Any] | None = None, *, tree: bool = False,
) -> Table:  # fmt: skip
    """The table of these rows; `left` is the summary's account of those that are not there."""
    cells = [[column.cell(row) for column in columns] for row in rows]
    return Table(name, title, columns, cells, _note(left), tree)


def _note(left: Mapping[str, Any] | None) -> str:
    if not left:
        return ""
    rows = left["rows"]
    words = [
        f"{fmt_count(left[field])} {what}"
        for field, what in (
            ("count", "calls"),
            ("errors", "errors"),
            ("starts", "starts"),
            ("estimated", "of these calls estimated"),
        )
        if left.get(field) is not None
    ]
    if left.get("task_clock") is not None:
        words.append(f"{fmt_ns(left['task_clock'])} on a CPU")
    more = f", {' and '.join(words)} in all" if words else ""
    return f"{rows} more {'row is' if rows == 1 else 'rows are'} not in this file{more}."


def _errnos(row: Row) -> Cell:
    known = sorted(row.get("errnos", {}).items(), key=lambda item: -item[1])
    return Cell(", ".join([f"{name} {fmt_count(n)}" for name, n in known]), None, "wrap")


def syscall_tables(probe: Row) -> list[Table]:
    """By call, by process, and both together."""
    seconds, others = probe["seconds"], probe["others"]
    rows, processes, matrix = probe["rows"], probe["processes"], probe["matrix"]
    total = sum([row["count"] for row in rows])
    common = [
        number("calls", "count"),
        rate("calls/s", "count", seconds),
        *within(probe.get("duty")),
        share("share", "count", total, "of all calls"),
        number("errors", "errors", "calls that returned an error", style="bad"),
        rate("err/s", "errors", seconds, "bad"),
        share("err %", "errors", "count", "of its calls, those that failed"),
    ]
    spent = [
        number("p50", "p50", "half of its calls took no longer", fmt_ns),
        number("p99", "p99", "99 of 100 calls took no longer", fmt_ns),
        Column("max", True, "the longest call", lambda row: _longest({**row, "unit": "ns"})),
        number("total", "total", "all its calls together", fmt_ns),
    ]
    timed = any(row["p50"] is not None for row in rows)
    call = [text("call", "syscall"), *common, *(spent if timed else [])]
    call.append(Column("errors by name", False, "errno of those that failed", _errnos))
    process = [plain("pid", "pid"), text("process", "comm"), *common]
    both = [plain("pid", "pid"), text("process", "comm"), text("call", "syscall"), *common]
    return [
        table("syscalls", "By call", call, rows, others.get("rows")),
        table("syscall-processes", "By process", process, processes, others.get("processes")),
        table("syscall-matrix", "By process and call", both, matrix, others.get("matrix")),
    ]


def _ended(row: Row) -> Cell:
    outcome = str(row["outcome"])
    failed = row["ret"] < 0 or row["signal"] or row["exit_code"]
    return Cell(outcome, None, "bad" if failed else "")


def _command(row: Row) -> Cell:
    args = row["args"]
    words = join_args(args) if args else f"[{row['comm']}]"
    depth = min(int(row["depth"]), 12)
    return Cell(words + (" ..." if row["truncated"] else ""), None, f"cmd d{depth}")


def exec_tables(probe: Row) -> list[Table]:
    """Executions as a tree, and how often each program was started."""
    rows, others = probe["rows"], probe["others"]
    tree = [
        Column("time", True, "", lambda row: Cell(clock(row["time"], 2), row["time"])),
        plain("pid", "pid"),
        plain("ppid", "ppid"),
        text("parent", "parent"),
        plain("uid", "uid"),
        number("ran", "duration", "from the execution to the end", fmt_ns),
        Column("end", False, "exit code, signal, error, exec: it went on as another", _ended),
        Column(
            "cgroup", False, "", lambda row: Cell(row.get("group") or short_cgroup(row["cgroup"]))
        ),
        Column("command", False, "below the program that started it", _command),
    ]
    programs = [
        text("program", "program"),
        number("starts", "starts"),
        rate("starts/s", "starts", probe["seconds"]),
        number("not found", "failed", "searches that found no program to run", style="bad"),
        number("exit code", "nonzero", "ends with an exit code other than 0", style="warn"),
        number("killed", "killed", "ends by a signal", style="bad"),
        number("mean", "mean", "from the execution to the end", fmt_ns),
        Column("errors by name", False, "why it was not found", _errnos),
        text("path", "path", "as it was executed last"),
    ]
    return [
        table("execs", "Executions", tree, rows, others.get("rows"), tree=True),
        table("programs", "By program", programs, probe["programs"], others.get("programs")),
    ]


def _value(row: Row, field: str) -> Cell:
    """A duration, or a plain value where the target measures those."""
    fmt = fmt_ns if row["unit"] == "ns" else fmt_count
    return Cell(fmt(row[field]), row[field])


def _longest(row: Row) -> Cell:
    """The maximum, or what no duration exceeds; files of earlier versions do not say which.

    Of a target that was attached in bursts it is the longest that they saw.
    """
    cell = _value(row, "max")
    if row.get("duty") and cell.text != UNKNOWN:
        return cell._replace(text=f">={cell.text}")
    return cell._replace(text=at_most(cell.text, bool(row.get("max_exact"))))


def _measured(name: str, field: str, hint: str) -> Column:
    return Column(name, True, hint, lambda row: _value(row, field))


def _state(row: Row) -> Cell:
    words = [str(word) for word in (row["why"], row["fix"]) if word]
    if row["state"] == "on":
        return Cell(
            "; ".join([str(row["mechanism"] or UNKNOWN), *words]), None, "wrap" * bool(words)
        )
    if row.get("given_up"):
        return Cell("; ".join(words), None, "wrap warn")
    style = "wrap bad" if row["state"] == "failed" else "wrap"
    return Cell("; ".join([str(row["state"]), *words]), None, style)


def _target_rate(seconds: float | None) -> Column:
    """Calls a second: of a target that was attached in bursts, over the time they stand for."""

    def cell(row: Row) -> Cell:
        return rate("", "count", row["seconds"] if row.get("duty") else seconds).cell(row)

    return Column("calls/s", True, "per second, over the time in which the probe ran", cell)


def _target_within(targets: Sequence[Row]) -> list[Column]:
    """How far off the calls may be of targets that were attached in bursts."""
    duties = {row["spec"]: row["duty"] for row in targets if row.get("duty")}
    found = {spec: within(duty)[0] for spec, duty in duties.items()}
    if not found:
        return []
    first = next(iter(found.values()))

    def cell(row: Row) -> Cell:
        return found[row["spec"]].cell(row) if row["spec"] in found else Cell("")

    return [Column(first.name, True, first.hint, cell)]


def latency_tables(probe: Row) -> list[Table]:
    """Targets, and who is behind them."""
    targets = probe["targets"]
    columns = [
        text("target", "spec"),
        Column("how", False, "the kernel's mechanism, or why it does not run", _state),
        number("calls", "count"),
        _target_rate(probe["seconds"]),
        *_target_within(targets),
        _measured("p50", "p50", "half of the calls took no longer"),
        _measured("p90", "p90", "9 of 10 calls took no longer"),
        _measured("p99", "p99", "99 of 100 calls took no longer"),
        _measured("p99.9", "p999", "999 of 1000 calls took no longer"),
        Column("max", True, "the longest", _longest),
        _measured("mean", "mean", ""),
        _measured("total", "total", "all calls together"),
        number("untimed", "missed", "calls whose duration is not known", style="warn"),
        number("overflow", "overflow", "calls that found no space to be timed", style="bad"),
        number("floor", "floor", "what an empty function shows: the probes' own time", fmt_ns),
    ]
    behind = [{**row, "spec": target["spec"]} for target in targets for row in target["behind"]]
    for row in behind:
        known = row["total"] is not None and row["count"]
        row["mean"] = row["total"] / row["count"] if known else None
        row["who"] = row.get("text", row.get("comm"))
    units = {target["spec"]: target["unit"] for target in targets}
    who = [
        text("target", "spec"),
        plain("pid", "pid"),
        text("process or text", "who"),
        number("calls", "count"),
        *[
            Column(name, True, hint, lambda row, name=name: _value(  # type: ignore[misc]
                {**row, "unit": units[row["spec"]]}, name))
            for name, hint in (("total", "all calls together"), ("mean", "of one call"))
        ],
    ]  # fmt: skip
    missing = sum([(target["others"] or {}).get("rows", 0) for target in targets])
    left = {"rows": missing} if missing else None
    return [
        table("targets", "Targets", columns, targets),
        table("behind", "Who is behind them", who, behind, left),
    ]


def _ipc(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def pmc_tables(probe: Row) -> list[Table]:
    """CPUs and processes with what was counted."""
    from probes.pmc_stream import field_name

    seconds = probe["seconds"]
    wall = seconds * 1e9 if seconds else 0
    events = [rate(f"{event}/s", field_name(event), seconds) for event in probe["events"] or ()]
    ipc = number("IPC", "ipc", "instructions a cycle", _ipc)
    switches = rate("switches/s", "context_switches", seconds)
    waits = number("wait", "wait", "runnable, but without a CPU", fmt_ns)
    cpus = [
        plain("CPU", "cpu"),
        share("busy", "busy", wall, "of the time, with a process"),
        *within(probe.get("duty"), "busy"),
        ipc, *events, switches, waits,
    ]  # fmt: skip
    processes = [
        plain("pid", "pid"),
        text("process", "comm"),
        share("CPU", "task_clock", wall, "of one CPU"),
        *within(probe.get("duty"), "task_clock"),
        number("time", "task_clock", "on a CPU", fmt_ns),
        ipc, *events, switches,
        rate("migrations/s", "migrations", seconds),
        waits,
    ]  # fmt: skip
    left = probe["others"].get("processes")
    return [
        table("cpus", "CPUs", cpus, probe["cpus"]),
        table("pmc-processes", "Processes", processes, probe["processes"], left),
    ]
