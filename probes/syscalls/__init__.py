# SPDX-License-Identifier: Apache-2.0
"""The system-call probe: rates, errors, processes and durations.

It imports the packages below the probes, and no other probe. Begin with `syscalls.bpf.c`, then
`reader` (maps to cumulative counters) and `probe`.
"""
