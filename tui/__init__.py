# SPDX-License-Identifier: Apache-2.0
"""The user side: Frames on the screen, in files, as streams and over HTTP, and the command line.

It imports `probes`, never the reverse; Textual is imported by what draws a screen or a picture of
one only. Begin with `tui.cli` (commands) and `tui.registry` (probes and their panes), then
`tui.app.app`.
"""

import os

# Textual reads these when it is first imported: drawing more often than this only costs.
os.environ.setdefault("TEXTUAL_FPS", "15")
os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
