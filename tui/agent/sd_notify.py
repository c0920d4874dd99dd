# SPDX-License-Identifier: Apache-2.0
"""Reports the service's state to systemd by the protocol of sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Sends assignments to the socket that `environment` names; without one, it does nothing."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._sock: socket.socket | None = None
        path = environment.get("NOTIFY_SOCKET", "")
        if path[:1] in ("/", "@"):
            # Opened while the path is reachable; "@" stands for an abstract socket.
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sock.setblocking(False)
            with suppress(OSError):
                self._sock.connect(f"\0{path[1:]}" if path[0] == "@" else path)
        self.watchdog = self._watchdog(environment) if self._sock is not None else None

    @staticmethod
    def _watchdog(environment: Mapping[str, str]) -> float | None:
        """Seconds between keep-alives, half of the watchdog's limit; None without a watchdog."""
        words = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        if not words[0].isdigit() or int(words[0]) == 0:
            return None
        return int(words[0]) / 2e6 if words[1] in ("", str(os.getpid())) else None

    def say(self, *words: str) -> None:
        """Send assignments such as "READY=1"; ignore a missing receiver."""
        if self._sock is not None:
            with suppress(OSError):
                self._sock.send("\n".join(words).encode("utf-8", "replace"))
