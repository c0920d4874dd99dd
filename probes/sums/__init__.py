# SPDX-License-Identifier: Apache-2.0
"""Sums of what many intervals counted, by what a probe declares.

It imports what is below it, up to `recording`; each probe has its own `sum` where tables do not do.
Begin with `accumulators` (the sum of many Samples) and `table_sum` (by declaration).
"""
