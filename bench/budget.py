# SPDX-License-Identifier: Apache-2.0
"""Does the budget hold? What a loop of system calls on every CPU loses to probetop beside it.

What counts is the work that others still get done, whoever took the rest: programs in the
kernel, what it takes to call them, the dashboard's own process, loading and trying again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.measure import ROOT, BenchError, compiled, timed
from bench.tables import Table

BEFORE_SECONDS, LEAST_SECONDS = 3.0, 40.0
"""A second is how long it takes to notice; a trial comes twice a minute at most."""
DEFAULT = "probetop --latency (budget 2, as it is by default)"
LOST = "% lost"
VARIANTS: dict[str, tuple[str, ...] | None] = {
    "nothing": None,
    "probetop --latency --budget 1": ("--latency", "--budget", "1"),
    DEFAULT: ("--latency",),
    "probetop --latency --budget 0 (any)": ("--latency", "--budget", "0"),
}


@contextmanager
def streaming(options: Sequence[str] | None) -> Iterator[None]:
    """probetop without its screen, all probes on, from its first object on."""
    if options is None:
        yield
        return
    command = [sys.executable, "-P", "-m", "tui.cli", "stream", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise BenchError(f"{' '.join(command)} ended")
            drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
            yield
        finally:
            process.terminate()
            process.wait(10)
            drain.wait(10)


def of_budget(folder: Path, rounds: int, seconds: float, say: Callable[[str], object]) -> Table:
    """Calls a second of all CPUs with each variant, and what part is missing.

    Variants take turns; the best of their rounds of `seconds` each counts. A short storm comes
    before: what must be given up is, and what is measured are the trials to have it back.
    """
    program = compiled(folder, "storm")["storm"]
    seconds = max(LEAST_SECONDS, seconds)
    best = dict.fromkeys(VARIANTS, 0.0)
    for number in range(rounds):
        say(f"  round {number + 1} of {rounds}")
        for name, options in VARIANTS.items():
            with streaming(options):
                timed(program, BEFORE_SECONDS)
                best[name] = max(best[name], timed(program, seconds))
    base = best["nothing"]
    rows: list[Sequence[str]] = [
        (name, f"{rate / 1e6:.3f}", "-" if name == "nothing" else f"{100 * (1 - rate / base):.1f}")
        for name, rate in best.items()
    ]
    title = f"A loop of system calls on every CPU for {seconds:.0f} s, with all probes beside it"
    return title, ("beside it", "million calls/s", LOST), rows
