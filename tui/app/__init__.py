# SPDX-License-Identifier: Apache-2.0
"""The dashboard as one Textual program: Frames and keys in, the screen out.

It imports all rooms that draw: widgets, hosts, sessions, panes, the terminal, and export for a
picture. Begin with `tui.app.app`, which owns the controllers, then `tui.app.view`, which all share.
"""
