# SPDX-License-Identifier: Apache-2.0
"""Giving memory back: an agent runs for weeks, and is asked for much now and then."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tui.shared.gc_pause import uncollected

_LIBRARY = ctypes.CDLL(None)


@contextmanager
def much() -> Iterator[None]:
    """Something for which many Frames are decoded, and which leaves next to nothing."""
    try:
        with uncollected():
            yield
    finally:
        give_back()


def give_back() -> None:
    """Return to the system what is free."""
    # The C library keeps what was freed between what is in use; there are others than GNU's.
    with suppress(AttributeError):
        _LIBRARY.malloc_trim(0)
