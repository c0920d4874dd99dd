# SPDX-License-Identifier: Apache-2.0
"""The parts that belong to one source of Frames: panes, history, recording.

It imports `probes` and `tui.panes`, never Textual. Begin with `tui.sessions.session`, then
`tui.sessions.timeline_player`, which chooses the moment that the panes show.
"""
