# SPDX-License-Identifier: Apache-2.0
"""What keys do: one object for each concern of the dashboard, which is given what it needs.

They import sessions, widgets and the terminal, and of each other what they are given. Begin with
`tui.app.controllers.drawing` (when Frames are shown), then `tui.app.controllers.playback`.
"""
