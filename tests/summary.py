# SPDX-License-Identifier: Apache-2.0
"""Adds up the outcomes of several pytest runs and prints them as one summary line.

    python -m tests.summary SECONDS FILE...     each FILE is what PROBETOP_COUNTS named

The status is 1 when a run has failures, or has written no counts because it did not end.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

Counts = dict[str, int]
"""How many tests had each outcome, by pytest's name of it."""

OUTCOMES = ("failed", "passed", "skipped", "xfailed", "xpassed", "warnings", "error")
"""In the order of pytest's own summary."""
BAD = ("failed", "error")


def summary(runs: Sequence[Counts | None], seconds: float) -> str:
    """A line in the form of pytest's; None is a run that did not end."""
    total = Counter[str]()
    for run in runs:
        total.update(run or {"unfinished": 1})
    parts = [_part(total[name], name) for name in OUTCOMES if total[name]]
    if total["unfinished"]:
        parts.append(f"unfinished runs: {total['unfinished']}")
    took = f"{seconds:.2f}s ({timedelta(seconds=int(seconds))})"
    return f" {', '.join(parts) or 'no tests ran'} in {took} ".center(100, "=")


def _part(number: int, name: str) -> str:
    # pytest has a plural for these two only, and calls its category of warnings by the plural.
    if name == "warnings":
        name = "warning"
    plural = "s" if name in ("warning", "error") and number != 1 else ""
    return f"{number} {name}{plural}"


def read(path: Path) -> Counts | None:
    """What a run has written; None if it has written nothing."""
    text = path.read_text() if path.exists() else ""
    return json.loads(text) if text else None


def main(arguments: Sequence[str]) -> int:
    """Prints the line; the status for the shell."""
    seconds, *paths = arguments
    runs = [read(Path(path)) for path in paths]
    print(summary(runs, float(seconds)))
    good = all(run is not None and not any(run.get(name) for name in BAD) for run in runs)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
