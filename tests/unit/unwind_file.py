# SPDX-License-Identifier: Apache-2.0
"""Writes the unwind tables of small ELF files."""

from __future__ import annotations

import struct
from collections.abc import Sequence

FRAMES_AT, SEARCH_AT = 0x500000, 0x600000
X86_FIRST = bytes([0x0C, 7, 8, 0x90, 1])
"""def_cfa rsp+8; offset of the return address: what a compiler's tables begin with on x86_64."""
ARM_FIRST = bytes([0x0C, 31, 0])


def common(first: bytes = X86_FIRST, augmentation: bytes = b"zR", more: bytes = b"") -> bytes:
    """A CIE: version 1, code in bytes, data in words of -8, addresses from their own place."""
    data = more + b"\x1b"
    body = b"\x01" + augmentation + b"\0" + b"\x01\x78\x10" + bytes([len(data)]) + data + first
    return _record(struct.pack("<I", 0) + body)


def tables(
    functions: Sequence[tuple[int, int, bytes]], head: bytes | None = None, letters: int = 1
) -> dict[str, tuple[int, bytes]]:
    """Sections for functions of an address, a size and call frame instructions, by address."""
    frames = head if head is not None else common()
    rows = []
    for address, size, program in functions:
        at = len(frames)
        rows.append((address, FRAMES_AT + at))
        start = address - (FRAMES_AT + at + 8)
        body = struct.pack("<IiI", at + 4, start, size) + b"\0" * letters + program
        frames += _record(body)
    search = b"\x01\x1b\x03\x3b" + struct.pack("<iI", FRAMES_AT - SEARCH_AT - 4, len(rows))
    search += b"".join(struct.pack("<ii", a - SEARCH_AT, f - SEARCH_AT) for a, f in rows)
    return {".eh_frame": (FRAMES_AT, frames), ".eh_frame_hdr": (SEARCH_AT, search)}


def _record(body: bytes) -> bytes:
    body += b"\0" * (-len(body) % 4)
    return struct.pack("<I", len(body)) + body
