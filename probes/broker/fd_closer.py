# SPDX-License-Identifier: Apache-2.0
"""Closing descriptors that keep programs attached, in a child that waits in the broker's place.

Closing the last descriptor of a uprobe blocks until the kernel has seen an RCU grace period,
about a tenth of a second for each. The child closes many at once, in threads, which share grace
periods; nobody waits for it, and it ends by itself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from probes.bpf import kretprobe
from probes.ipc import packets
from probes.ipc.child_process import close_others

AT_ONCE = 32
"""Threads that close descriptors; each mostly sleeps in the kernel."""


class Closer:
    """Has descriptors closed; `reap` takes note of children that have ended."""

    def __init__(self) -> None:
        self._pids: set[int] = set()

    def close(self, fds: Sequence[int]) -> None:
        """Have descriptors closed; ours are closed when this returns, and that takes no time."""
        if not fds:
            return
        pipe: tuple[int, ...] = ()
        try:
            go, wait = pipe = os.pipe()
            pid = os.fork()
        except OSError:
            # No process or descriptor is left: the kernel makes us wait instead.
            packets.close_all([*pipe, *fds])
            kretprobe.tidy()
            return
        if pid == 0:
            with contextlib.suppress(BaseException):
                close_others({go, *fds})
                os.read(go, 1)
                close_at_once(fds)
                kretprobe.tidy()
            os._exit(0)
        os.close(go)
        packets.close_all(fds)
        # The child's descriptors are the last ones from now on.
        os.close(wait)
        self._pids.add(pid)

    def reap(self) -> None:
        """Reap children that have ended."""
        for pid in list(self._pids):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._pids.discard(pid)


FEW = 4
"""Descriptors that get a thread each: a pool of them takes longer to import than to close these."""


def close_at_once(fds: Sequence[int]) -> None:
    """Close descriptors, many at a time."""
    if len(fds) <= FEW:
        import threading

        threads = [threading.Thread(target=os.close, args=(fd,)) for fd in fds]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        return
    # Only the child needs it, and it takes longer to import than the broker's own modules.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(AT_ONCE, len(fds))) as pool:
        list(pool.map(os.close, fds))
