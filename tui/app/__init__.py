# SPDX-License-Identifier: Apache-2.0
"""The dashboard as a Textual program: takes Frames and keys, draws the screen.

It imports all packages that draw (widgets, hosts, sessions, panes, terminal) and `tui.export` for a
picture. Begin with `tui.app.app`, which owns the controllers, then `tui.app.view`, the state that
they share.
"""
