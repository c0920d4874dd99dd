# SPDX-License-Identifier: Apache-2.0
"""Bytes that a process chose as text that can always be encoded as UTF-8, and back.

A process's name, its arguments, a path and a cgroup may be any bytes. Python's own way
(surrogateescape) makes lone surrogates of those that are no UTF-8, which JSON, files and
terminals refuse later, where nobody expects it. Here such a byte becomes the four characters
"\\xff" at once.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"\\x([89a-f][0-9a-f])")


def readable(raw: bytes) -> str:
    """The text of these bytes; each that is no UTF-8 becomes an escape such as \\xff."""
    return raw.decode("utf-8", "backslashreplace")


def escaped(text: str) -> str:
    """The same for a text in which lone surrogates stand for such bytes."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8", "backslashreplace")


def raw_of(text: str) -> bytes:
    """The bytes that `readable` made this text of, as far as one can tell.

    Bytes that spell out such an escape themselves are taken for the byte that it stands for.
    """
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), escaped(text).encode("utf-8"))
