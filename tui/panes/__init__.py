# SPDX-License-Identifier: Apache-2.0
"""Panes: each turns the Frames of one probe into lines of styled text.

They import `probes` and the modules for text and tables beside them, but not Textual, and know
neither terminals nor maps. Begin with `tui.panes.base`, then `tui.panes.table` and
`tui.panes.syscalls`.
"""
