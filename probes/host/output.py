# SPDX-License-Identifier: Apache-2.0
"""Writing to standard output and standard error, which may be full, closed or a pipe without
a reader: one line and an exit status, never a traceback.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from probes.core.errors import ProbeError


def write(text: str, out: TextIO) -> bool:
    """Write a text and flush it; False when nobody reads any more. Raises ProbeError.

    Characters that the stream's encoding does not have become backslash escapes.
    """
    try:
        code = out.encoding or "utf-8"
        out.write(text.encode(code, "backslashreplace").decode(code))
        out.flush()
    except BrokenPipeError:
        discard(out)
        return False
    except (OSError, ValueError) as error:
        discard(out)
        reason = getattr(error, "strerror", None) or "it is closed"
        why = f"cannot write to standard output: {reason}"
        raise ProbeError(why, "check where it leads to") from error
    return True


def complain(line: str) -> None:
    """One line on standard error in which nothing acts on a terminal; nothing where it is gone."""
    if sys.stderr is None:
        return
    safe = "".join(c if c.isprintable() else "?" for c in " ".join(line.split()))
    code = sys.stderr.encoding or "utf-8"
    try:
        print(
            f"probetop: {safe}".encode(code, "backslashreplace").decode(code),
            file=sys.stderr,
            flush=True,
        )
    except (OSError, ValueError):
        discard(sys.stderr)


def discard(out: TextIO) -> None:
    """What is still in the buffer goes nowhere: Python would complain of it at exit."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, out.fileno())
        os.close(null)


def reserve_standard_descriptors() -> None:
    """Open /dev/null in the place of closed descriptors 0 to 2.

    A file opened later would get such a number, and what some library prints would go into it.
    """
    with suppress(OSError):
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(fd, True)
        os.close(fd)
