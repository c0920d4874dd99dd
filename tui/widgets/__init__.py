# SPDX-License-Identifier: Apache-2.0
"""Textual widgets: header, footer, help and the places of panes, drawn by the cell.

They import Textual, panes and `tui.shared.styled_lines`; they take no commands from sources.
Begin with `tui.widgets.cells`, which sends only what changed, then `tui.widgets.pane`.
"""
