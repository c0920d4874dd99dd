# SPDX-License-Identifier: Apache-2.0
"""Names of the functions that BTF data describes, without libbpf.

The layout is that of Documentation/bpf/btf.rst. One name is found in milliseconds, the
whole list takes about 60 ms for a kernel of 56,000 functions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_BTF_HEADER = struct.Struct("<HBBIIIII")
_FUNC = 12
# Bytes of a type of each kind (include/uapi/linux/btf.h), and those of each of its members.
_SIZES = dict.fromkeys(range(20), 12) | {1: 16, 3: 24, 14: 16, 17: 16}
_MEMBERS = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def describes(data: bytes, name: str, base: bytes = b"") -> bool:
    """Whether BTF data has a function of that name; `base` as in `btf_functions`.

    Looks for the first eight bytes of such a type, which is faster than to read all types.
    """
    if len(data) < _BTF_HEADER.size:
        return False
    _, _, _, header, start, size, _, _ = _BTF_HEADER.unpack_from(data)
    start += header
    word = b"\0" + name.encode("utf-8", "replace") + b"\0"
    base_strings = _strings(base)
    # A module's first string has no zero before it, which adding the kernel's last gives.
    inner = (b"\0" + _strings(data)).find(word)
    places = (base_strings.find(word) + 1, inner + len(base_strings) if inner >= 0 else 0)
    for at in filter(None, places):
        # Static, global and external functions differ in the low bits.
        for linkage in range(3):
            wanted = struct.pack("<2I", at, _FUNC << 24 | linkage)
            found = data.find(wanted, start, start + size)
            while found >= 0:
                if (found - start) % 4 == 0:
                    return True
                found = data.find(wanted, found + 1, start + size)
    return False


def btf_functions(data: bytes, base: bytes = b"") -> Iterator[tuple[str, int]]:
    """(name, type number) of the functions in BTF data, a module's with the kernel's as `base`.

    Stops at a kind of type that is newer than this list, so that no number is wrong.
    """
    first, strings = 1, b""
    if base:
        first, strings = _count(base) + 1, _strings(base)
    strings += _strings(data)
    for number, name, kind in _types(data, first):
        if kind == _FUNC:
            yield strings[name : strings.find(b"\0", name)].decode("utf-8", "replace"), number


def _count(data: bytes) -> int:
    return sum(1 for _ in _types(data, 1))


def _strings(data: bytes) -> bytes:
    if len(data) < _BTF_HEADER.size:
        return b""
    _, _, _, header, _, _, at, size = _BTF_HEADER.unpack_from(data)
    return data[header + at : header + at + size]


def _types(data: bytes, number: int) -> Iterator[tuple[int, int, int]]:
    """(type number, offset of its name, kind) of every type."""
    if len(data) < _BTF_HEADER.size:
        return
    magic, _, _, header, at, size, _, _ = _BTF_HEADER.unpack_from(data)
    at += header
    end = min(at + size, len(data) - 11)
    if magic != 0xEB9F:
        return
    read = struct.Struct("<2I").unpack_from
    while at < end:
        name, info = read(data, at)
        kind = info >> 24 & 0x1F
        if kind not in _SIZES:
            return
        yield number, name, kind
        at += _SIZES[kind] + _MEMBERS.get(kind, 0) * (info & 0xFFFF)
        number += 1
