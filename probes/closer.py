# SPDX-License-Identifier: Apache-2.0
"""A process that closes descriptors, and waits in the broker's place.

Whoever closes the last descriptor of a probe waits until the kernel has detached it, about
a tenth of a second for each. Nobody else has to: not the dashboard, which draws, and not the
broker, which may be asked for the next probe.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Sequence

from probes import ipc, returns

IDLE_SECONDS = 1.0


class Closer:
    """The broker's side: at most one child, while there is something to close.

    `forget` is called in the child and closes what it must not keep open.
    """

    def __init__(self, forget: Callable[[], None]) -> None:
        self.sock: socket.socket | None = None
        self._forget = forget
        self._pid = 0

    def close(self, fds: Sequence[int]) -> None:
        """Have descriptors closed; ours are closed when this returns."""
        if not fds:
            return
        if self.sock is None:
            self._start(fds)
        assert self.sock is not None
        # A child with its hands full, or one that has just ended: then it is for us to wait.
        with contextlib.suppress(OSError):
            ipc.send(self.sock, {}, fds)
        ipc.close_all(fds)
        # Only now the child's are the last.
        with contextlib.suppress(OSError):
            ipc.send(self.sock, {})

    def reap(self) -> None:
        """The child has ended."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
            os.waitpid(self._pid, 0)

    def end(self) -> None:
        """Leave the child to what it still has to close: it ends by itself."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def _start(self, fds: Sequence[int]) -> None:
        ours, theirs = ipc.pair()
        self._pid = os.fork()
        if self._pid == 0:
            with contextlib.suppress(BaseException):
                # The dashboard must see EOF when the broker dies, whatever we do.
                self._forget()
                ours.close()
                ipc.close_all(fds)
                serve(theirs)
            os._exit(0)
        theirs.close()
        ours.setblocking(False)
        self.sock = ours


def serve(sock: socket.socket) -> None:
    """The child: closes what comes when it is told to, until nothing comes for a while."""
    doomed: list[int] = []
    while select.select([sock], [], [], IDLE_SECONDS)[0]:
        received = ipc.receive(sock)
        if received is None:
            break
        doomed += received[1]
        if not received[1]:
            _close(doomed)
            doomed = []
    _close(doomed)


def _close(fds: Sequence[int]) -> None:
    ipc.close_all(fds)
    returns.tidy()
