# SPDX-License-Identifier: Apache-2.0
"""The terminal: what is sent to it without waiting, and how much of it gets through.

It imports Textual, of which it uses private parts, and no other room. Begin with
`tui.terminal.driver`, then `tui.terminal.writer` and `tui.terminal.compositor`.
"""
