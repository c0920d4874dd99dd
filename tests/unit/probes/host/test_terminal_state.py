# SPDX-License-Identifier: Apache-2.0
"""What a killed dashboard has changed of its terminal is changed back."""

from __future__ import annotations

import os
import pty
from contextlib import suppress

import pytest

from probes.host import terminal_state

NOBODY = -1
"""A parent that is gone."""


@pytest.mark.parametrize("before", [True, False])
def test_whether_reading_waits_is_as_it_was(before: bool) -> None:
    """The shell has the same open file: its next read would fail."""
    pid, master = pty.fork()
    if pid == 0:
        with suppress(BaseException):
            os.set_blocking(0, before)
            terminal_state.share()
            saved = terminal_state.remember()
            terminal_state.taken(True)
            os.set_blocking(0, False)
            terminal_state.restore(saved, NOBODY)
            os._exit(int(os.get_blocking(0)))
        os._exit(99)
    try:
        with suppress(OSError):
            while os.read(master, 4096):
                pass
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == int(before)
    finally:
        os.close(master)
