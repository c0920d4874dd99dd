# SPDX-License-Identifier: Apache-2.0
"""How large a table of one place for each thread is, see include/threads.h."""

from __future__ import annotations

from probes.core import kernel

PLACES = 4
"""Threads that share a set, at most."""
FEWEST_SETS, MOST_SETS = 1 << 14, 1 << 18
"""One MiB to sixteen, where thread numbers go far."""
DEFAULT_PID_MAX = 32768


def sets_for(pid_max: int, threads: int) -> int:
    """A power of two: with it each of `threads` threads finds a place, but for bad luck.

    There is none where numbers below `pid_max` are few: then every one has its own place. Else
    there are eight places for each of the threads.
    """
    enough = _power(-(-pid_max // PLACES))
    wanted = min(MOST_SETS, max(FEWEST_SETS, _power(2 * threads)))
    return min(enough, wanted)


def sets_of_places() -> int:
    """`sets_for` this machine as it is now."""
    text = kernel.read_text("/proc/sys/kernel/pid_max") or ""
    pid_max = int(text) if text.isdigit() else DEFAULT_PID_MAX
    # The fourth field of "0.00 0.01 0.05 1/80 1234" tells how many threads there are.
    fields = (kernel.read_text("/proc/loadavg") or "").split()
    threads = fields[3].rpartition("/")[2] if len(fields) > 3 else ""
    return sets_for(pid_max, int(threads) if threads.isdigit() else 0)


def _power(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
