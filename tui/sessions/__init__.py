# SPDX-License-Identifier: Apache-2.0
"""What belongs to one source of Frames: its panes, its past, its recording.

It imports `probes` and panes, never Textual. Begin with `tui.sessions.session`, then
`tui.sessions.timeline_player`, which decides what moment the panes show.
"""
