# SPDX-License-Identifier: Apache-2.0
"""Run in an emulated machine that has hardware counters, with perf as the judge."""
