# SPDX-License-Identifier: Apache-2.0
"""The dashboard as one Textual program: Frames and keys in, the screen out.

It imports all rooms below: widgets, sessions, panes, the terminal. Begin with `tui.app.app.app`, then
`tui.app.app.screen` and `tui.app.app.controllers`.
"""
