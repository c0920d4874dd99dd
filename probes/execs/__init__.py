# SPDX-License-Identifier: Apache-2.0
"""The exec probe: every program execution, failed ones as well, and how processes end.

It imports the packages below the probes, and no other probe. Begin with `execs.bpf.c`, then `probe`
(records to events) and `process_log` (an execution and its end as one row).
"""
