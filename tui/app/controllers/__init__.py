# SPDX-License-Identifier: Apache-2.0
"""Controllers: one object for each concern of the dashboard, which carries out its keys.

They import sessions, widgets and the terminal; a controller that needs another gets it as an
argument. Begin with `tui.app.controllers.drawing` (when a Frame is shown), then
`tui.app.controllers.playback`.
"""
