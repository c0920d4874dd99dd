# SPDX-License-Identifier: Apache-2.0
"""The agent in a terminal: it writes there, cannot read keys, and ends by ctrl+C."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.kernel.harness import status_of
from tests.kernel.terminal import Tty

pytestmark = [pytest.mark.kernel, pytest.mark.concurrent]
SERVE = f"{sys.executable} -m tui.cli serve --listen 127.0.0.1:0 --budget 0 --probes execs"


def agent_of(tty: Tty) -> int:
    """The process without privileges."""
    for pid in tty.tree():
        if status_of(pid)["Uid"].split()[0] == "65534":
            return pid
    return 0


@pytest.mark.parametrize("script", [f"{SERVE}; echo after", f"exec {SERVE}"])
def test_it_cannot_read_the_keys_of_its_terminal(script: str) -> None:
    """As a job of a shell, and as the leader of the terminal's session."""
    with Tty("bash", "-c", script, size=(200, 30)) as tty:
        tty.until("it serves", lambda: "serving on" in tty.text)
        agent = agent_of(tty)
        assert agent
        assert os.readlink(f"/proc/{agent}/fd/0") == "/dev/null"
        for standard in (1, 2):
            flags = re.search(
                r"flags:\t0*(\d*)", Path(f"/proc/{agent}/fdinfo/{standard}").read_text()
            )
            assert flags is not None
            assert int(flags[1] or "0", 8) & os.O_ACCMODE == os.O_WRONLY
        terminal = int(Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[4])
        assert (terminal == 0) is (agent != tty.pid)
        tty.type("\x03")
        assert tty.ended() in (0, 130)
        assert tty.text.count("Traceback") == 0
