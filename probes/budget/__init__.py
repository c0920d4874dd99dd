# SPDX-License-Identifier: Apache-2.0
"""What the probes cost, and what is given up when that is too much.

It imports what is below it, up to `uprobes`. Begin with `meter` (what programs cost, by the
kernel's statistics) and `policy` (what to reduce, and when to take it back).
"""
