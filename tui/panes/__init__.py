# SPDX-License-Identifier: Apache-2.0
"""Panes: each one turns the Frames of a probe into lines of styled text.

They import `probes` and `tui.shared`; they use neither Textual nor maps. Begin with
`tui.panes.base`, then `tui.panes.table` and `tui.panes.syscalls`.
"""
