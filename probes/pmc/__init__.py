# SPDX-License-Identifier: Apache-2.0
"""The counter probe: cycles, instructions and misses, and what the scheduler did, for whom.

It imports the packages below the probes, and no other probe. Begin with `pmc.bpf.c`, then `reader`
(maps to cumulative counters) and `probe`.
"""
