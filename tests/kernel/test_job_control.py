# SPDX-License-Identifier: Apache-2.0
"""ctrl+Z and fg where a script of root's has called the dashboard, which is nobody by then."""

from __future__ import annotations

import pytest

from tests.kernel.harness import eventually
from tests.kernel.terminal import PROBETOP, Tty

pytestmark = [pytest.mark.kernel, pytest.mark.concurrent]
PROGRAM = " ".join([*PROBETOP, "-i", "0.2", "--probes", "execs"])


def test_ctrl_z_stops_the_script_as_well() -> None:
    with Tty("bash", "--norc", "--noprofile", "-i") as shell:
        shell.until("there is a shell", lambda: "shell> " in shell.text)
        shell.type(f"bash -c '{PROGRAM}; echo af''ter'\n")
        shell.shows("argv")
        for _ in range(2):
            tree = shell.tree()
            shell.type("\x1a")
            shell.until("the job is stopped", lambda: "Stopped" in shell.text[-500:])
            shell.grid.cells.clear()
            shell.text = ""
            shell.type("fg\n")
            shell.shows("q quit")
            assert shell.tree() == tree
        shell.text = ""
        shell.type("q")
        shell.until("the script goes on", lambda: "after\r\n" in shell.text)
        shell.type("exit\n")
        eventually("the shell has ended", lambda: shell.tree() == set() or shell.ended() == 0)
