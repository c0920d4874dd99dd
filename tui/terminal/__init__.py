# SPDX-License-Identifier: Apache-2.0
"""The terminal: writes output without blocking the program, and measures the link.

It imports Textual, including private parts, and no other package of `tui`. Begin with
`tui.terminal.driver`, then `tui.terminal.writer` and `tui.terminal.compositor`.
"""
