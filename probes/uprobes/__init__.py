# SPDX-License-Identifier: Apache-2.0
"""How calls of user-space functions are timed without harm to the programs that make them.

It imports what is below it, up to `symbols`. What cannot be proven is not attached. Begin with
`timing_ends` (which way of timing a function gets) and `own_returns` (where a function returns).
"""
