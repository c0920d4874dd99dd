# SPDX-License-Identifier: Apache-2.0
"""The forks probe: threads and processes that are created, by CPU.

It imports the packages below the probes, and no other probe. Begin with `forks.bpf.c`, then
`probe`.
"""
