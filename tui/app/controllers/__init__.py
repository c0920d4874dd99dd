# SPDX-License-Identifier: Apache-2.0
"""What keys do: one module for each concern of the dashboard.

They import sessions, widgets and the terminal. Begin with
`tui.app.controllers.commands`, then `tui.app.controllers.playback`.
"""
