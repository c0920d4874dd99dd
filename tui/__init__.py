# SPDX-License-Identifier: Apache-2.0
"""The user side: shows Frames on the screen, in files, as streams and over HTTP; the command line.

It imports `probes`, never the reverse. Only modules that draw a screen or a picture import Textual.
Begin with `tui.cli` (commands) and `tui.registry` (probes and their panes), then `tui.app.app`.
"""

import os

# Textual reads these variables at its first import; drawing more often only costs CPU time.
os.environ.setdefault("TEXTUAL_FPS", "15")
os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
