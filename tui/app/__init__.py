# SPDX-License-Identifier: Apache-2.0
"""The dashboard as one Textual program: Frames and keys in, the screen out.

It imports all rooms below: widgets, sessions, panes, the terminal. Begin with `tui.app.app`, then
`tui.app.screen` and `tui.app.controllers`.
"""
