# SPDX-License-Identifier: Apache-2.0
"""The protocol of sd_notify(3)."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tui.agent.sd_notify import Notifier


@pytest.mark.parametrize("abstract", [False, True])
def test_words_reach_the_manager(tmp_path: Path, abstract: bool) -> None:
    path = f"@probetop-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path.replace("@", "\0", 1))
        manager.settimeout(20)
        notifier = Notifier({"NOTIFY_SOCKET": path})
        notifier.say("READY=1", "STATUS=serving")
        assert manager.recv(4096) == b"READY=1\nSTATUS=serving"
    # A manager that is gone is no error.
    notifier.say("STOPPING=1")


@pytest.mark.parametrize("path", ["", "relative", "/no/such/socket"])
def test_without_a_manager_nothing_happens(path: str) -> None:
    Notifier({"NOTIFY_SOCKET": path}).say("READY=1")
    assert Notifier({}).watchdog is None


def test_the_watchdog_is_told_in_half_of_its_time() -> None:
    path = {"NOTIFY_SOCKET": "/no/such/socket"}
    assert Notifier({**path, "WATCHDOG_USEC": "10000000"}).watchdog == 5.0
    ours = {"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier({**path, **ours}).watchdog == 5.0
    # That of another process is not for us.
    assert Notifier({**path, **ours, "WATCHDOG_PID": "1"}).watchdog is None
    assert Notifier({**path, "WATCHDOG_USEC": "0"}).watchdog is None
    assert Notifier({**path, "WATCHDOG_USEC": "soon"}).watchdog is None
    assert Notifier(ours).watchdog is None
