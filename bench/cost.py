# SPDX-License-Identifier: Apache-2.0
"""What probetop costs, beside its peers, in one run: a table on the screen and RESULTS.md.

    sudo .venv/bin/python -m bench.cost [--quick] [--out FILE]

It needs gcc; syscount and execsnoop (libbpf-tools), htop and btop are compared with where they
are installed. It takes about ten minutes; let the machine do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import machine, measure, screen
from bench.measure import HERE, BenchError

SIZES = ((120, 40), (80, 24))
Table = tuple[str, Sequence[str], list[Sequence[str]]]
"""A heading, the names of the columns, and rows of cells."""


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def difference_table(title: str, unit: str, turns: measure.Turns) -> Table:
    """The fastest round of each variant, and how much it is above that of the first one."""
    best = {name: min(values) for name, values in turns.values.items()}
    base = next(iter(best.values()))
    rows: list[Sequence[str]] = []
    for name, value in best.items():
        rows.append((name, f"{value:.1f}", f"{value - base:+.1f}" if rows else "-"))
    total = sum(map(len, turns.values.values()))
    if turns.disturbed:
        title += f" (in {turns.disturbed} of {total} measurements others traced as well)"
    return title, ("attached", unit, f"added {unit}"), rows


def of_calls(folder: Path, rounds: int) -> Table:
    """ns that are added to a system call."""
    say("system calls")
    programs = measure.compiled(folder, "spin")
    last = max(os.sched_getaffinity(0))
    turns = measure.take_turns(
        measure.call_variants(shutil.which),
        lambda: measure.timed(programs["spin"], last, 8, 200_000),
        rounds,
        say,
    )
    return difference_table("One system call (getppid), with this attached", "ns", turns)


def of_execs(folder: Path, rounds: int) -> Table:
    """Microseconds that are added to running a program."""
    say("programs")
    programs = measure.compiled(folder, "spawn", "idle")
    last = max(os.sched_getaffinity(0))
    turns = measure.take_turns(
        measure.exec_variants(shutil.which),
        lambda: measure.timed(programs["spawn"], last, 5, 300, programs["idle"]) / 1000,
        rounds,
        say,
    )
    title = "One program (fork, execve of a static program, its end), with this attached"
    return difference_table(title, "us", turns)


@contextmanager
def workload(seconds: float) -> Iterator[None]:
    """bench/workload.py, once it is at work, for at most so long."""
    script = str(HERE / "workload.py")
    process = subprocess.Popen(["/usr/bin/python3", script, "--seconds", str(seconds)])
    try:
        time.sleep(3)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _dashboards(home: Path) -> dict[str, tuple[list[str], dict[str, str], bytes]]:
    """Command, environment and keys of what is compared; all renew the screen once a second."""
    ours = screen.probetop_command()
    out: dict[str, tuple[list[str], dict[str, str], bytes]] = {
        "probetop": (ours, {}, b""),
        "probetop with latency": ([*ours, "--latency"], {}, b""),
    }
    if shutil.which("htop"):
        out["htop"] = (["htop", "-d", "10"], {"HOME": str(home)}, b"")
    if shutil.which("btop"):
        (home / "btop").mkdir()
        (home / "btop" / "btop.conf").write_text("update_ms = 1000\n")
        out["btop"] = (["btop"], {"XDG_CONFIG_HOME": str(home), "HOME": str(home)}, b"")
    return out


def of_screens(folder: Path, seconds: float) -> Table:
    """CPU, bytes and memory of dashboards, idle and under load."""
    say("dashboards")
    rows: list[Sequence[str]] = []
    dashboards = _dashboards(folder)
    for load in ("idle", "workload"):
        for size in SIZES:
            for name, (command, environment, keys) in dashboards.items():
                say(f"  {name} at {size[0]}x{size[1]}, {load}")
                if load == "idle":
                    taken = screen.taken(command, size, seconds, environment, keys)
                else:
                    with workload(seconds + 30):
                        taken = screen.taken(command, size, seconds, environment, keys)
                rows.append(
                    (
                        name,
                        f"{size[0]}x{size[1]}",
                        load,
                        f"{taken.cpu:.2f}",
                        f"{taken.bytes:.0f}",
                        f"{taken.memory:.0f}",
                        str(taken.processes),
                    )
                )
    head = ("dashboard", "size", "machine", "% of a CPU", "bytes/s", "MB (PSS)", "processes")
    return f"Dashboards, one interval a second, over {seconds:.0f} s", head, rows


def of_start(rounds: int) -> Table:
    """How soon probetop is there, and gone."""
    say("starts")
    starts = [screen.began() for _ in range(rounds)]
    rows: list[Sequence[str]] = [
        ("first frame", f"{min(s.frame for s in starts):.0f}"),
        ("both probes on and drawn", f"{min(s.probes for s in starts):.0f}"),
        ("from q to the end", f"{min(s.quit for s in starts):.0f}"),
    ]
    return f"Start and end of probetop, fastest of {rounds}", ("until", "ms"), rows


def as_markdown(table: Table) -> str:
    """A table as Markdown; its first column is of words, the others of numbers."""
    title, head, rows = table
    lines = [f"## {title}", "", f"| {' | '.join(head)} |"]
    lines.append("|".join(["", " --- ", *[" ---: "] * (len(head) - 1), ""]))
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def as_text(table: Table) -> str:
    """A table for the terminal."""
    title, head, rows = table
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    lines = [title]
    for row in [head, *rows]:
        first, *rest = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *[cell.rjust(size) for cell, size in rest]]
        lines.append("  " + "  ".join(cells))
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measures everything, prints it and writes it down."""
    parser = argparse.ArgumentParser(description="What probetop costs, beside its peers.")
    parser.add_argument("--quick", action="store_true", help="two rounds, short: to try it out")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md", help="the file to write")
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("it needs root: run it through sudo")
    rounds, seconds = (2, 5.0) if args.quick else (8, 20.0)
    tables: list[Table] = []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="probetop-bench-") as name:
        folder = Path(name)
        parts: list[Callable[[], Table]] = [
            lambda: of_calls(folder, rounds),
            lambda: of_execs(folder, rounds),
            lambda: of_start(rounds),
            lambda: of_screens(folder, seconds),
        ]
        for part in parts:
            try:
                tables.append(part())
            except BenchError as error:
                say(f"bench: {error}")
                return 1
            print(as_text(tables[-1]), flush=True)
    text = machine.describe(rounds, load, sys.argv[1:])
    args.out.write_text("\n".join([text, *map(as_markdown, tables)]), encoding="utf-8")
    say(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
