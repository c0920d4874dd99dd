# SPDX-License-Identifier: Apache-2.0
"""The live Source: polls the probes of this machine and makes Frames.

It imports everything below but `report`. Begin with `start` (which processes there are), then
`source` (the thread that polls) and `budget_controller`.
"""
