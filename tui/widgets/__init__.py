# SPDX-License-Identifier: Apache-2.0
"""Textual widgets: header, footer, help, dialogs and the frames of panes.

They import Textual, panes and `tui.shared.styled_lines`, and send no commands to sources. Begin
with `tui.widgets.cells`, which repaints only changed cells, then `tui.widgets.pane`.
"""
