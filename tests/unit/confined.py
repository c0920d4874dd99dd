# SPDX-License-Identifier: Apache-2.0
"""A child process for tests of what a confined process may do: it answers with errno names."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

Try = Callable[[], object]


def in_child(confine: Callable[[], object], tries: Sequence[Try]) -> list[str]:
    """Run `confine` and then each try in a child; "ok" or the errno's name of each."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        # No line of the caller may be reached here, whatever goes wrong.
        try:
            confine()
            words = [_outcome(attempt) for attempt in tries]
            os.write(writing, " ".join(words).encode())
        except BaseException as error:
            os.write(writing, f"failed: {error!r}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        text = file.read().decode()
    _, status = os.waitpid(pid, 0)
    assert status == 0
    assert not text.startswith("failed:"), text
    return text.split()


def _outcome(attempt: Try) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return "ok"
