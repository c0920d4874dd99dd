# SPDX-License-Identifier: Apache-2.0
"""The dashboard of two machines, of which one has the name that is given: for tests on a terminal.

Run as: python -m tests.pilot.hostile_host NAME
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from probes.core.frame import Frame
from tests.pilot.fake_remote import FakeRemote
from tui.app.start import run_attached


class Started(FakeRemote):
    """A machine that sends one Frame as soon as it is asked."""

    def start(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        super().start(on_frame, on_end)
        self.push()


if __name__ == "__main__":
    sys.exit(run_attached([Started("web-1", "ssh://web-1"), Started(sys.argv[1], "ssh://far")]))
