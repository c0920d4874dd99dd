# SPDX-License-Identifier: Apache-2.0
"""Polls of a simulated machine, one after the other as they are asked for.

    python -m bench.worker

Each line of standard input names a probe; the answer is a line of two numbers: the milliseconds of
the poller, and of the pane from a Frame to its cells, of the fastest of three polls. So two
commits can take turns within a second, each by its own code.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from bench.poll import CPUS, GARBAGE, PROCESSES, TARGETS, Machine, of_one
from bench.simulated import Counters, Latency, Syscalls
from tui.panes.base import Pane
from tui.panes.latency import LatencyPane
from tui.panes.pmc import PmcPane
from tui.panes.syscalls import SyscallPane

ACTIVE, ROUNDS = 2_000, 3
MAKERS: dict[str, tuple[Callable[[], Machine], Callable[[], Pane]]] = {
    "syscalls": (lambda: Syscalls(CPUS, PROCESSES), SyscallPane),
    "pmc": (lambda: Counters(CPUS, PROCESSES), PmcPane),
    "latency": (lambda: Latency(CPUS, PROCESSES, TARGETS), LatencyPane),
}


def main() -> int:
    """Answers until the end of input."""
    gc.set_threshold(*GARBAGE)
    made: dict[str, tuple[Machine, Pane]] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in made:
            machine, pane = MAKERS[name]
            made[name] = machine(), pane()
        drain, sample, *cells, _ = of_one(*made[name], ACTIVE, ROUNDS)
        print(f"{drain + sample:.4f} {sum(cells):.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
