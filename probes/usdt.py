# SPDX-License-Identifier: Apache-2.0
"""Reads the static probes (USDT) that an ELF file names in its .note.stapsdt section.

The note's layout is SystemTap's: three addresses (the probe's, .stapsdt.base's when the
file was linked, the reference counter's) and three strings (provider, name, arguments);
see the "UserSpaceProbeImplementation" page of the SystemTap wiki.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_SHT_NOTE, _PT_LOAD = 7, 1


@dataclass(frozen=True, slots=True)
class UsdtProbe:
    """One static probe: offsets into the file of its instruction and its reference counter.

    `semaphore` is 0 for a probe that needs no reference counter.
    """

    provider: str
    name: str
    offset: int
    semaphore: int


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    address: int
    offset: int
    size: int


def usdt_probes(path: str) -> list[UsdtProbe]:
    """The static probes of a 64-bit little-endian ELF file; empty when it has none or is no ELF.

    Raises OSError when the file cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    if data[:6] != b"\x7fELF\x02\x01":
        return []
    try:
        return list(_probes(data))
    except (struct.error, IndexError, ValueError, OverflowError):
        # A damaged file has no probes that could be trusted.
        return []


def _probes(data: bytes) -> Iterator[UsdtProbe]:
    sections = {section.name: section for section in _sections(data)}
    notes, base = sections.get(".note.stapsdt"), sections.get(".stapsdt.base")
    if notes is None or notes.kind != _SHT_NOTE:
        return
    segments = _segments(data)
    for description in _notes(data[notes.offset : notes.offset + notes.size]):
        address, linked_base, semaphore = struct.unpack_from("<3Q", description)
        provider, name = description[24:].split(b"\0")[:2]
        # Prelinking moves sections without changing the notes.
        moved = base.address - linked_base if base else 0
        counter = _offset(segments, semaphore + moved) if semaphore else 0
        offset = _offset(segments, address + moved)
        yield UsdtProbe(provider.decode(), name.decode(), offset, counter)


def _notes(data: bytes) -> Iterator[bytes]:
    """Descriptions of the notes of a section, which are padded to four bytes."""
    at = 0
    while at + 12 <= len(data):
        name_size, size, _ = struct.unpack_from("<3I", data, at)
        at += 12 + (name_size + 3 & ~3)
        yield data[at : at + size]
        at += size + 3 & ~3


def _sections(data: bytes) -> list[_Section]:
    table = struct.unpack_from("<Q", data, 0x28)[0]
    size, count, names = struct.unpack_from("<3H", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
    strings = headers[names][4]

    def name(at: int) -> str:
        return data[strings + at : data.index(b"\0", strings + at)].decode()

    return [_Section(name(h[0]), h[1], h[3], h[4], h[5]) for h in headers]


def _segments(data: bytes) -> list[tuple[int, int, int]]:
    """(address, file offset, size in the file) of what is loaded."""
    table = struct.unpack_from("<Q", data, 0x20)[0]
    size, count = struct.unpack_from("<2H", data, 0x36)
    headers = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
    return [(h[3], h[2], h[5]) for h in headers if h[0] == _PT_LOAD]


def _offset(segments: list[tuple[int, int, int]], address: int) -> int:
    for start, offset, size in segments:
        if start <= address < start + size:
            return address - start + offset
    raise ValueError(f"address {address:#x} is in no segment")
