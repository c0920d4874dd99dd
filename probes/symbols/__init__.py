# SPDX-License-Identifier: Apache-2.0
"""What can be traced: functions, static probes and tracepoints, and where they are.

It imports `core`, `ipc`, `host` and `bpf`. ELF files and tracefs are read here, by type and size.
Begin with `target_spec` (what a user writes) and `binaries` (which place in which file that means).
"""
