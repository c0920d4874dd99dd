# SPDX-License-Identifier: Apache-2.0
"""Reads the static probes (USDT) that an ELF file names in its .note.stapsdt section.

The note's layout is SystemTap's: three addresses (the probe's, .stapsdt.base's when the
file was linked, the reference counter's) and three strings (provider, name, arguments);
see the "UserSpaceProbeImplementation" page of the SystemTap wiki.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.suggestions import did_you_mean, near, quote
from probes.host.file_access import check_time
from probes.host.open_file import OpenFile, opened
from probes.symbols.elf import MOST_NAME, Elf, Section
from probes.symbols.usdt_operands import Argument, arguments

_SHT_NOTE, _STAPSDT = 7, 3
_COUNTER = 2
"""Bytes of a reference counter."""
MOST_NOTES_BYTES = 8 << 20
MOST_PROBES = 20_000
"""Places of all static probes of a file; QEMU, which has very many, has about 5,000."""
_NOPS = {
    "x86_64": (b"\x90", b"\x0f\x1f\x44\x00\x00"),
    "arm64": (b"\x1f\x20\x03\xd5",),
}
"""What a compiler leaves where a static probe is, for tracers to replace."""


@dataclass(frozen=True, slots=True)
class UsdtProbe:
    """One place of a static probe: file offsets of its instruction and its reference counter.

    `semaphore` is 0 for a probe that needs no reference counter. `arguments` is how the
    compiler describes them, see `probes.symbols.usdt_operands`; `address` the instruction's as
    linked.
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


def read_probes(source: str | OpenFile) -> list[UsdtProbe]:
    """As `usdt_probes`, but raises ProbeError for what is no ELF file of this machine."""
    with Elf(source) as elf:
        return list(_probes(elf))


def find_probes(source: str | OpenFile, provider: str, name: str) -> list[UsdtProbe]:
    """Every place of one static probe, `provider` "" for any; raises ProbeError for none."""
    file = opened(source)
    path, known = file.path, read_probes(file)
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


def check_nop(file: OpenFile, probe: UsdtProbe) -> None:
    """Raises ProbeError unless a static probe is where the compiler left a nop for it."""
    nops = _NOPS.get(kernel.arch() or "", ())
    if not file.read(5, probe.offset).startswith(nops):
        name = quote(f"{probe.provider}:{probe.name}")
        why = f"{quote(file.path)} has no nop at {probe.address:#x}, where it places {name}"
        raise ProbeError(why, "rebuild the program: its notes do not fit its code")


def arguments_of(
    source: str | OpenFile, probes: Collection[UsdtProbe]
) -> list[tuple[Argument, ...]]:
    """The arguments of a static probe at each of its places; raises ProbeError."""
    arch = kernel.arch() or ""
    wanted: set[str] = set()
    for probe in probes:
        arguments(probe.arguments, arch, lambda name: wanted.add(name))
    addresses = _addresses(source, wanted) if wanted else {}

    def at(probe: UsdtProbe, name: str) -> int | None:
        # Variables of the file are named relative to the probe's own instruction.
        address = addresses.get(name)
        return None if address is None else address - probe.address

    return [
        tuple(arguments(probe.arguments, arch, lambda name, probe=probe: at(probe, name)))  # type: ignore[misc]
        for probe in probes
    ]


def _addresses(source: str | OpenFile, names: Collection[str]) -> dict[str, int]:
    """Addresses of the symbols of these names."""
    found: dict[str, int] = {}
    with Elf(source) as elf:
        for symbol in elf.symbols():
            if symbol.defined and symbol.name in names:
                found.setdefault(symbol.name, symbol.address)
    return found


def _probes(elf: Elf) -> Iterator[UsdtProbe]:
    notes, base = elf.section(".note.stapsdt"), elf.section(".stapsdt.base")
    counters = elf.section(".probes")
    if notes is None or notes.kind != _SHT_NOTE:
        return
    for number, description in enumerate(_notes(elf.data(notes, MOST_NOTES_BYTES))):
        if number >= MOST_PROBES:
            raise elf.too_large("more static probes", str(MOST_PROBES))
        probe = _probe(elf, description, base.address if base else None, counters)
        if probe is not None:
            yield probe


def _probe(
    elf: Elf, description: bytes, base: int | None, counters: Section | None
) -> UsdtProbe | None:
    """The static probe of a note; None for a note that contradicts the file."""
    if len(description) < 24:
        return None
    address, linked_base, semaphore = struct.unpack_from("<3Q", description)
    texts = description[24:].split(b"\0", 3)
    if len(texts) < 3 or len(description) > MOST_NAME:
        return None
    provider, name, noted = (part.decode("utf-8", "replace") for part in texts[:3])
    # Prelinking moves sections without changing the notes.
    moved = 0 if base is None else base - linked_base
    place, offset = address + moved, elf.code_offset(address + moved)
    counter = _counter(elf, semaphore + moved, counters) if semaphore else 0
    # What a file's author named with control characters must not reach a terminal.
    if offset is None or counter is None or not (provider.isprintable() and name.isprintable()):
        return None
    return UsdtProbe(provider, name, offset, counter, noted, place)


def _counter(elf: Elf, address: int, counters: Section | None) -> int | None:
    """The file offset of a reference counter; None for what is no place of one.

    The kernel adds to it in every process that runs the file, so it must lie where compilers put
    such counters and nothing else: in the section .probes, which the program can change.
    """
    found = elf.segment(address)
    if counters is None or found is None or not found.writable:
        return None
    offset = address - found.address + found.offset
    end = min(counters.address + counters.size, found.address + found.size)
    inside = counters.address <= address and address + _COUNTER <= end
    # The kernel takes an offset of 32 bits, and an even one.
    return offset if inside and not offset % _COUNTER and offset < 1 << 32 else None


def _notes(data: bytes) -> Iterator[bytes]:
    """Descriptions of SystemTap's notes in a section; they are padded to four bytes."""
    at = 0
    while at + 12 <= len(data):
        check_time()
        name_size, size, kind = struct.unpack_from("<3I", data, at)
        at += 12
        owner = data[at : at + min(name_size, 8)]
        at += name_size + 3 & ~3
        if kind == _STAPSDT and owner == b"stapsdt\0":
            yield data[at : at + min(size, MOST_NAME + 1)]
        at += size + 3 & ~3
