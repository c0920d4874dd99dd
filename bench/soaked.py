# SPDX-License-Identifier: Apache-2.0
"""The dashboard, which also tells how much of its interpreter's memory is in use.

    python -m bench.soaked FILE [probetop's arguments]

After SIGUSR1 the file, which the one who asks has emptied, holds the number of small blocks that
live objects have, garbage less, and the bytes of all larger ones: what is resident tells little,
for a heap keeps what it needed once, and frays.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from functools import _lru_cache_wrapper

from tui import cli


class _Mallinfo(ctypes.Structure):
    """mallinfo2(3): the bytes that are mapped for single blocks, and those of all others."""

    _fields_ = [
        ("before", ctypes.c_size_t * 4),
        ("mapped", ctypes.c_size_t),
        ("between", ctypes.c_size_t * 2),
        ("used", ctypes.c_size_t),
        ("after", ctypes.c_size_t * 2),
    ]


def large_bytes() -> int:
    """Bytes in use of what malloc gave: more than 512 at once, or not to Python; 0: unknown."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    mallinfo.restype = _Mallinfo
    info = mallinfo()
    return int(info.mapped + info.used)


def main() -> int:
    """Runs as the command line does."""
    # Opened now: later the process may write no files.
    told = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def tell(number: int, frame: object) -> None:
        # A cache with a limit fills for minutes; one without is a leak, and stays.
        for one in gc.get_objects():
            if isinstance(one, _lru_cache_wrapper) and one.cache_parameters()["maxsize"]:
                one.cache_clear()
        gc.collect()
        os.pwrite(told, f"{sys.getallocatedblocks()} {large_bytes()}\n".encode(), 0)

    signal.signal(signal.SIGUSR1, tell)
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
