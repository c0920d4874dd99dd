# SPDX-License-Identifier: Apache-2.0
"""Returns freed memory to the kernel after work that needs much of it.

An agent runs for weeks, and glibc keeps freed memory that lies between used allocations.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tui.shared.gc_pause import gc_paused

_LIBRARY = ctypes.CDLL(None)


@contextmanager
def returning_memory() -> Iterator[None]:
    """Run without the garbage collector, then return freed memory: for decoding many Frames."""
    try:
        with gc_paused():
            yield
    finally:
        return_memory()


def return_memory() -> None:
    """Return freed memory to the kernel, if the C library can."""
    # Only the GNU C library has this function.
    with suppress(AttributeError):
        _LIBRARY.malloc_trim(0)
