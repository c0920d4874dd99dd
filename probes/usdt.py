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

from probes import kernel
from probes.base import ProbeError
from probes.elf import Elf
from probes.near import did_you_mean, near, quote
from probes.operands import Argument, arguments

_SHT_NOTE = 7


@dataclass(frozen=True, slots=True)
class UsdtProbe:
    """One place of a static probe: file offsets of its instruction and its reference counter.

    `semaphore` is 0 for a probe that needs no reference counter. `arguments` is how the
    compiler describes them, see `probes.operands`; `address` the instruction's as linked.
    """

    provider: str
    name: str
    offset: int
    semaphore: int
    arguments: str = ""
    address: int = 0


def usdt_probes(path: str) -> list[UsdtProbe]:
    """The static probes of an ELF file, each as often as it was compiled in.

    Empty when the file has none, is no ELF file of this machine or is damaged. Raises
    OSError when it cannot be read.
    """
    with open(path, "rb"):
        pass
    try:
        return read_probes(path)
    except ProbeError:
        return []


def read_probes(path: str) -> list[UsdtProbe]:
    """As `usdt_probes`, but raises ProbeError for what is no ELF file of this machine."""
    with Elf(path) as elf:
        try:
            return list(_probes(elf))
        except (struct.error, IndexError, ValueError):
            # A damaged file has no probes that could be trusted.
            return []


def find_probes(path: str, provider: str, name: str) -> list[UsdtProbe]:
    """Every place of one static probe, `provider` "" for any; raises ProbeError for none."""
    known = read_probes(path)
    found = [p for p in known if p.name == name and provider in ("", p.provider)]
    if found:
        return found
    if not known:
        why = f"{quote(path)} has no static probes (USDT)"
        raise ProbeError(why, "use a build that has them (--enable-dtrace, systemtap-sdt-dev)")
    full = list(dict.fromkeys(f"{p.provider}:{p.name}" for p in known))
    names = [text for text in full if text.endswith(f":{name}")]
    names = names or near(f"{provider}:{name}" if provider else name, full)
    names = names or [n for p in near(name, {p.name for p in known}) for n in full if n.endswith(p)]
    shown = quote(f"{provider}:{name}" if provider else name)
    otherwise = f"it has {', '.join(full[:5])}{' and others' if len(full) > 5 else ''}"
    raise ProbeError(f"{quote(path)} has no static probe {shown}", did_you_mean(names, otherwise))


def arguments_of(path: str, probe: UsdtProbe) -> tuple[Argument, ...]:
    """The arguments of a static probe at one of its places; raises ProbeError, OSError."""

    def locate(name: str) -> int | None:
        # Variables of the file are named relative to the probe's own instruction.
        with Elf(path) as elf:
            found = (s.address for s in elf.symbols() if s.name == name and s.defined)
            address = next(found, None)
        return None if address is None else address - probe.address

    return tuple(arguments(probe.arguments, kernel.arch() or "", locate))


def _probes(elf: Elf) -> Iterator[UsdtProbe]:
    notes, base = elf.section(".note.stapsdt"), elf.section(".stapsdt.base")
    if notes is None or notes.kind != _SHT_NOTE:
        return
    for description in _notes(elf.data(notes)):
        address, linked_base, semaphore = struct.unpack_from("<3Q", description)
        provider, name, noted = (
            part.decode("utf-8", "replace") for part in description[24:].split(b"\0")[:3]
        )
        # Prelinking moves sections without changing the notes.
        moved = base.address - linked_base if base else 0
        counter = _offset(elf, semaphore + moved) if semaphore else 0
        # What a file's author named with control characters must not reach a terminal.
        if provider.isprintable() and name.isprintable():
            place = address + moved
            yield UsdtProbe(provider, name, _offset(elf, place), counter, noted, place)


def _notes(data: bytes) -> Iterator[bytes]:
    """Descriptions of the notes of a section, which are padded to four bytes."""
    at = 0
    while at + 12 <= len(data):
        name_size, size, _ = struct.unpack_from("<3I", data, at)
        at += 12 + (name_size + 3 & ~3)
        yield data[at : at + size]
        at += size + 3 & ~3


def _offset(elf: Elf, address: int) -> int:
    offset = elf.offset(address)
    if offset is None:
        raise ValueError(f"address {address:#x} is in no segment")
    return offset
