# SPDX-License-Identifier: Apache-2.0
"""What a run of Frames amounts to: the stream's objects, summaries, sums and series.

It imports what is below it, up to the probes. Begin with `stream` (one interval as scripts see it)
and `summary` (a whole run, for snapshots and comparisons).
"""
