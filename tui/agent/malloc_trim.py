# SPDX-License-Identifier: Apache-2.0
"""Returns freed memory to the kernel after work that needs much of it.

An agent runs for weeks, and glibc keeps what was freed between allocations that are in use.
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
    """Return freed memory to the kernel, where the C library can."""
    # Only GNU's has this function.
    with suppress(AttributeError):
        _LIBRARY.malloc_trim(0)
