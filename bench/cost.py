# SPDX-License-Identifier: Apache-2.0
"""What probetop costs, beside its peers, in one run: tables on the screen and RESULTS.md.

    sudo ./run.sh bench [--peers] [--quick] [--out FILE | --only PART | --against COMMIT]

Without --out it also renews the tables in README.md, so that nobody copies a number.
It needs gcc; peers are compared with where they are installed, and --peers installs the newest
ones that the distribution has. It takes about an hour and a half, half of it for the budget, and
with --quick eight minutes; let the machine do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import goals, machine, measure, peers, screen, tables, variants
from bench.against import compare
from bench.agent import of_agent
from bench.budget import SHORT, WHOLE, Lengths, of_budget
from bench.commit import hash_of
from bench.intervals import heading, of_median
from bench.measure import HERE, ROOT, BenchError, Variant
from bench.poll import of_many_cpus, of_polls
from bench.tables import Table, spread

RESULTS, README = HERE / "RESULTS.md", ROOT / "README.md"
SIZE = (120, 40)
ROUNDS = 6
"""The least for which an interval of 95 % exists."""
IN_README = {
    "calls": (
        variants.NOTHING,
        variants.PROBETOP,
        variants.LATENCY,
        variants.SAMPLED,
        variants.ALL,
        variants.SYSCOUNT,
        variants.SYSCOUNT_L,
        variants.BPFTRACE,
        variants.BPFTRACE_L,
    ),
    "screens": (goals.DASHBOARD, "htop", "btop", "glances"),
}
"""The rows of the README's extract, by part: what stands in the first column."""
OURS = "probetop"
"""What the names of this project's own variants begin with."""


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Bench:
    """One run: how thorough it is, and what could not be measured, by part."""

    folder: Path
    rounds: int
    seconds: float
    settle: float
    lengths: Lengths
    left_out: dict[str, str] = field(default_factory=dict)

    def _added(
        self, title: str, unit: str, which: list[Variant], timing: Callable[[], float]
    ) -> Table:
        turns = measure.take_turns(which, timing, self.rounds, say)
        self.left_out.update(turns.left_out)
        return tables.added_table(f"{title}, with this attached", unit, which, turns)

    def calls(self) -> Table:
        """ns that are added to a system call."""
        program, cpu = measure.compiled(self.folder, "spin")["spin"], last_cpu()
        which = variants.of_calls(peers.which)
        timing = lambda: measure.timed(program, cpu, 400, 5_000)  # noqa: E731
        return self._added("One system call (getppid)", "ns", which, timing)

    def function(self) -> Table:
        """ns that are added to a call of a user function."""
        program, cpu = measure.compiled(self.folder, "function")["function"], last_cpu()
        which = variants.of_function(peers.which, program)
        timing = lambda: measure.timed(program, cpu, 300, 1_000)  # noqa: E731
        return self._added("One call of a user function, work()", "ns", which, timing)

    def cxx(self) -> Table:
        """ns that are added to a call of a function that exceptions may leave."""
        program, cpu = measure.compiled_as_cxx(self.folder, "function"), last_cpu()
        timing = lambda: measure.timed(program, cpu, 300, 1_000)  # noqa: E731
        which = variants.of_cxx_function(program)
        return self._added("One call of a C++ function, work()", "ns", which, timing)

    def switches(self) -> Table:
        """ns that are added to a context switch."""
        program, cpu = measure.compiled(self.folder, "switch")["switch"], last_cpu()
        which = variants.of_switches(peers.which)
        timing = lambda: measure.timed(program, cpu, 600, 300)  # noqa: E731
        title = "One context switch (and two calls, to a pipe and back)"
        return self._added(title, "ns", which, timing)

    def execs(self) -> Table:
        """Microseconds that are added to running a program."""
        programs, cpu = measure.compiled(self.folder, "spawn", "idle"), last_cpu()
        which = variants.of_execs(peers.which)
        command = (programs["spawn"], cpu, 100, 10, programs["idle"])
        timing = lambda: measure.timed(*command) / 1000  # noqa: E731
        title = "One program (fork, execve of a static program, its end)"
        return self._added(title, "us", which, timing)

    def start(self) -> Table:
        """How soon probetop is there, and gone."""
        starts = [screen.began() for _ in range(self.rounds)]
        figures = {
            "first frame": [start.frame for start in starts],
            goals.ALL_ON: [start.probes for start in starts],
            "from q to the end": [start.quit for start in starts],
        }
        rows: list[Sequence[str]] = []
        for until, values in figures.items():
            interval = of_median(values)
            rows.append((until, f"{interval.median:.0f}", spread(interval, ".0f")))
        title = f"Start and end of probetop, median of {len(starts)}"
        return title, ("until", "ms", heading(len(starts))), rows

    def screens(self) -> Table:
        """CPU, bytes and memory of dashboards, idle and under load."""
        rows: list[Sequence[str]] = []
        dashboards = screen.dashboards(self.folder, peers.which)
        for load in ("idle", "workload"):
            taken: dict[str, list[screen.Taken]] = {name: [] for name in dashboards}
            for number in range(self.rounds):
                say(f"  {load}, round {number + 1} of {self.rounds}")
                with screen.machine_with(load, len(dashboards) * (self.seconds + 30)):
                    self._round_of(dashboards, taken)
            size = f"{SIZE[0]}x{SIZE[1]}"
            rows += [
                (name, size, load, *screen.cells(all_)) for name, all_ in taken.items() if all_
            ]
        head = ("dashboard", "size", "machine", *screen.columns(self.rounds))
        title = f"Dashboards, one interval a second, median of {self.rounds} rounds"
        return f"{title} of {self.seconds:.0f} s", head, rows

    def _round_of(
        self, dashboards: screen.Dashboards, taken: dict[str, list[screen.Taken]]
    ) -> None:
        """Each dashboard once; one that does not run is left out, with all that it took."""
        for name, (command, environment) in dashboards.items():
            if name not in taken:
                continue
            try:
                found = screen.taken(command, SIZE, self.settle, self.seconds, environment)
            except BenchError as error:
                say(f"  left out: {name}: {error}")
                self.left_out[name] = str(error)
                del taken[name]
                continue
            taken[name].append(found)

    def budget(self) -> Table:
        """What others lose while probetop stays within its budget."""
        return of_budget(self.folder, self.lengths, say)

    def agent(self) -> Table:
        """What the agent takes, with and without clients."""
        return of_agent(self.rounds, self.settle, self.seconds / 2, say)

    def polls(self) -> Table:
        """What one poll of a large machine takes."""
        return of_polls(max(3, self.rounds))

    def many_cpus(self) -> Table:
        """What the largest machines take: memory, start and poll."""
        return of_many_cpus(max(3, self.rounds))

    def parts(self) -> dict[str, tuple[str, Callable[[], Table]]]:
        """Everything that is measured, in its order: what is said meanwhile, and how."""
        return {
            "calls": ("system calls", self.calls),
            "function": ("a user function", self.function),
            "cxx": ("a C++ function", self.cxx),
            "switches": ("context switches", self.switches),
            "execs": ("programs", self.execs),
            "start": ("starts", self.start),
            "screens": ("dashboards", self.screens),
            "budget": ("the budget", self.budget),
            "agent": ("the agent", self.agent),
            "polls": ("polls", self.polls),
            "many_cpus": ("polls of the largest machines", self.many_cpus),
        }


PARTS = tuple(Bench(Path(), 0, 0, 0, SHORT).parts())


def last_cpu() -> int:
    """The CPU that is measured on."""
    return max(os.sched_getaffinity(0))


def for_readme(found: goals.Tables) -> list[Table]:
    """What the README has of the tables: of dashboards one size under load."""
    out: list[Table] = []
    for part in ("calls", "start", "screens", "budget", "agent", "goals"):
        if part not in found:
            continue
        table = found[part]
        if part == "screens":
            table = tables.rows_where(table, "machine", goals.BUSY["machine"])
            table = tables.rows_where(table, "size", goals.BUSY["size"])
        if part in IN_README:
            table = tables.rows_where(table, table[1][0], *IN_README[part])
        out.append(table)
    return out


def results(head: str, found: goals.Tables, notes: Sequence[str]) -> str:
    """The whole of RESULTS.md."""
    lines = "".join(f"- {note}\n" for note in notes)
    left = f"## Left out\n\n{lines}" if notes else ""
    return "\n".join([head, *map(tables.as_markdown, found.values()), *([left] if left else [])])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./run.sh bench", description="What probetop costs, beside its peers."
    )
    parser.add_argument("--quick", action="store_true", help="shorter: to try it")
    parser.add_argument(
        "--peers", action="store_true", help="install or upgrade the peers first, by apt-get"
    )
    parser.add_argument("--out", type=Path, help="write this file, not RESULTS.md and the README")
    parser.add_argument(
        "--only",
        choices=PARTS,
        metavar="PART",
        help=f"measure and print this, and write nothing: {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--against",
        metavar="COMMIT",
        help="compare with a commit by turns: status 1 if this tree is slower by more than 10 %%",
    )
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("it needs root: run it through sudo")
    if args.against is not None:
        try:
            hash_of(args.against)
        except BenchError as error:
            parser.error(str(error))
    return args


def run(bench: Bench, only: str | None) -> dict[str, Table]:
    """Measure and print all parts, or one; a part that cannot be measured is left out."""
    found: dict[str, Table] = {}
    parts = bench.parts()
    for part in [only] if only else parts:
        what, measured = parts[part]
        say(what)
        try:
            found[part] = measured()
        except BenchError as error:
            say(f"bench: {error}")
            bench.left_out[f"{OURS}, {what}"] = str(error)
            continue
        print(tables.as_text(found[part]), flush=True)
    return found


def against(commit: str, quick: bool) -> int:
    """Compares with a commit and prints it; 1 if this tree is slower, or cannot be measured."""
    try:
        table, slower = compare(commit, quick, say)
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    print(tables.as_text(table), flush=True)
    return int(slower)


def main() -> int:
    """Measures everything, prints it and writes it down; 1 if some of probetop's own failed."""
    args = _arguments()
    if args.against is not None:
        return against(args.against, args.quick)
    load = os.getloadavg()[0]
    if args.peers:
        peers.install()
    missing = peers.missing()
    if missing:
        say(f"bench: {missing}")
    with tempfile.TemporaryDirectory(prefix="probetop-bench-") as name:
        folder = Path(name)
        if args.quick:
            bench = Bench(folder, rounds=2, seconds=3, settle=4, lengths=SHORT)
        else:
            bench = Bench(folder, rounds=ROUNDS, seconds=20, settle=6, lengths=WHOLE)
        found = run(bench, args.only)
    failed = any(name.startswith(OURS) for name in bench.left_out)
    if args.only:
        return int(failed)
    found["goals"] = goals.goals_table(found)
    print(tables.as_text(found["goals"]), flush=True)
    head = machine.describe(bench.rounds, load, sys.argv[1:])
    out = args.out or RESULTS
    notes = [f"{name}: {why}" for name, why in bench.left_out.items()]
    tables.write(out, results(head, found, [*notes, *([missing] if missing else [])]))
    if args.out is None:
        tables.write_between(README, tables.for_readme(for_readme(found)))
    say(f"written to {out}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
