# SPDX-License-Identifier: Apache-2.0
"""User side of probetop: Frames to the screen, to files and to other programs."""

import os

# Textual reads these when it is first imported: drawing more often than this only costs.
os.environ.setdefault("TEXTUAL_FPS", "15")
os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
