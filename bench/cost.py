# SPDX-License-Identifier: Apache-2.0
"""What probetop costs, beside its peers, in one run: a table on the screen and RESULTS.md.

    sudo .venv/bin/python -m bench.cost [--quick] [--out FILE | --only PART]

Without --out it also renews the tables in README.md, so that nobody copies a number.
It needs gcc; syscount and execsnoop (libbpf-tools), htop and btop are compared with where they
are installed. It takes about fifteen minutes; let the machine do nothing else meanwhile.
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
from bench.measure import HERE, ROOT, BenchError

RESULTS, README = HERE / "RESULTS.md", ROOT / "README.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
"""What is between these marks in the README is written by this program."""
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
        lambda: measure.timed(programs["spin"], last, 400, 5_000),
        rounds,
        say,
    )
    return difference_table("One system call (getppid), with this attached", "ns", turns)


def of_switches(folder: Path, rounds: int) -> Table:
    """ns that are added to a context switch."""
    say("context switches")
    programs = measure.compiled(folder, "switch")
    last = max(os.sched_getaffinity(0))
    turns = measure.take_turns(
        measure.switch_variants(shutil.which),
        lambda: measure.timed(programs["switch"], last, 600, 300),
        rounds,
        say,
    )
    title = "One context switch (and two calls, to a pipe and back), with this attached"
    return difference_table(title, "ns", turns)


def of_execs(folder: Path, rounds: int) -> Table:
    """Microseconds that are added to running a program."""
    say("programs")
    programs = measure.compiled(folder, "spawn", "idle")
    last = max(os.sched_getaffinity(0))
    turns = measure.take_turns(
        measure.exec_variants(shutil.which),
        lambda: measure.timed(programs["spawn"], last, 100, 10, programs["idle"]) / 1000,
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


def _dashboards(home: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Command and environment of what is compared; all renew the screen once a second."""
    ours = screen.probetop_command()
    out: dict[str, tuple[list[str], dict[str, str]]] = {
        "probetop": (ours, {}),
        "probetop --latency": ([*ours, "--latency"], {}),
        "probetop --probes syscalls,execs": ([*ours, "--probes", "syscalls,execs"], {}),
    }
    if shutil.which("htop"):
        out["htop"] = (["htop", "-d", "10"], {"HOME": str(home)})
    if shutil.which("btop"):
        (home / "btop").mkdir()
        (home / "btop" / "btop.conf").write_text("update_ms = 1000\n")
        out["btop"] = (["btop"], {"XDG_CONFIG_HOME": str(home), "HOME": str(home)})
    return out


def of_screens(folder: Path, seconds: float) -> Table:
    """CPU, bytes and memory of dashboards, idle and under load."""
    say("dashboards")
    rows: list[Sequence[str]] = []
    dashboards = _dashboards(folder)
    for load in ("idle", "workload"):
        for size in SIZES:
            for name, (command, environment) in dashboards.items():
                say(f"  {name} at {size[0]}x{size[1]}, {load}")
                if load == "idle":
                    taken = screen.taken(command, size, seconds, environment)
                else:
                    with workload(seconds + 30):
                        taken = screen.taken(command, size, seconds, environment)
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
        ("all probes on and drawn", f"{min(s.probes for s in starts):.0f}"),
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


def for_readme(tables: Sequence[Table]) -> str:
    """The tables as the README has them: of dashboards one size under load."""
    out = []
    for title, head, rows in tables:
        if "size" in head:
            rows = [row for row in rows if row[1:3] == ("120x40", "workload")]
        out.append(
            as_markdown((title, head, rows)).replace("## ", "**", 1).replace("\n", "**\n", 1)
        )
    return "\n".join(out)


def write_readme(tables: Sequence[Table]) -> None:
    """Puts the tables between the README's two marks."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise BenchError(f"{README.name} has no {BEGIN} and {END}")
    README.write_text(f"{before}{BEGIN}\n{for_readme(tables)}{END}{after}", encoding="utf-8")


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
    parser.add_argument("--out", type=Path, help="write this file, not RESULTS.md and the README")
    parser.add_argument(
        "--only",
        choices=("calls", "switches", "execs", "start", "screens"),
        help="measure and print this, and write nothing",
    )
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("it needs root: run it through sudo")
    rounds, seconds = (2, 5.0) if args.quick else (6, 20.0)
    tables: list[Table] = []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="probetop-bench-") as name:
        folder = Path(name)
        parts: dict[str, Callable[[], Table]] = {
            "calls": lambda: of_calls(folder, rounds),
            "switches": lambda: of_switches(folder, rounds),
            "execs": lambda: of_execs(folder, rounds),
            "start": lambda: of_start(rounds),
            "screens": lambda: of_screens(folder, seconds),
        }
        for part in [parts[args.only]] if args.only else parts.values():
            try:
                tables.append(part())
            except BenchError as error:
                say(f"bench: {error}")
                return 1
            print(as_text(tables[-1]), flush=True)
    if args.only:
        return 0
    text = machine.describe(rounds, load, sys.argv[1:])
    out = args.out or RESULTS
    out.write_text("\n".join([text, *map(as_markdown, tables)]), encoding="utf-8")
    if args.out is None:
        write_readme(tables)
    say(f"written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
