# SPDX-License-Identifier: Apache-2.0
"""The latency probe: how long functions, and the time between events, take.

It imports the packages below the probes, and no other probe. Begin with `latency.bpf.c`, then
`planner` (targets to programs, as root) and `probe` (histograms to Samples).
"""
