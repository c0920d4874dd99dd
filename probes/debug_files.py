# SPDX-License-Identifier: Apache-2.0
"""Symbols that were taken out of a program: its debug file, else its .gnu_debugdata.

A debug file says where functions begin, so it is believed only if nobody but root and the owner
of the program can have written it. It is found by build id, then by .gnu_debuglink, as GDB does.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

from probes import file_access, kernel
from probes.base import ProbeError
from probes.elf import MOST_SECTION, Elf, Symbol
from probes.lookup import open_in_root
from probes.near import quote
from probes.open_file import OpenFile, check_kind, open_file

DEBUG_ROOT = "/usr/lib/debug"
MOST_UNPACKED = 64 << 20
"""Bytes that .gnu_debugdata may unpack to."""
MOST_MEMORY = 80 << 20
"""Bytes that unpacking it may take; `xz -9` takes 65 MiB."""
_PIECE = 4 << 20
_OVERFLOW_UID = 65534


def symbols(elf: Elf, debug_root: str = DEBUG_ROOT) -> Iterator[Symbol]:
    """Symbols of a stripped file's debug file, else of its .gnu_debugdata; raises ProbeError."""
    debug = believed(elf, debug_root)
    if debug is not None:
        with Elf(debug) as other:
            yield from other.symbols()
        return
    packed = elf.data(elf.section(".gnu_debugdata"), MOST_UNPACKED)
    if packed:
        yield from _unpacked(elf, packed)


def believed(elf: Elf, debug_root: str = DEBUG_ROOT) -> OpenFile | None:
    """The first debug file that is of this very program and that may be believed."""
    for path, inside in _candidates(elf, debug_root):
        # Where the name was chosen by the file, no text of a target vouches for it.
        with suppress(ProbeError, OSError, ValueError), file_access.untrusted():
            file = _inside(elf.file, path) if inside else open_file(path)
            if _is_trustworthy(file, elf.file, inside) and _is_of(file, elf):
                return file
    return None


def _candidates(elf: Elf, debug_root: str) -> list[tuple[str, bool]]:
    """Paths that may be debug files, best first, and whether they are of the program's root."""
    inside = elf.file.root >= 0
    build_id = elf.build_id().hex()
    by_id = f"{debug_root}/.build-id/{build_id[:2]}/{build_id[2:]}.debug" if build_id else ""
    names = [by_id] if by_id else []
    link = _link(elf)[0]
    if link and "/" not in link:
        path = elf.file.inner if inside else os.readlink(elf.file.link)
        directory = os.path.dirname(path)
        names += [
            f"{directory}/.debug/{link}",
            f"{debug_root}{directory}/{link}",
            f"{directory}/{link}",
        ]
    found = [(name, inside) for name in names]
    return [*found, (by_id, False)] if inside and by_id else found


def _link(elf: Elf) -> tuple[str, int | None]:
    """The file name of .gnu_debuglink, and the CRC of that file."""
    data = elf.data(elf.section(".gnu_debuglink"), MOST_SECTION >> 10)
    name, _, _ = data.partition(b"\0")
    at = len(name) + 4 & ~3
    crc = struct.unpack_from("<I", data, at)[0] if len(data) >= at + 4 else None
    return os.fsdecode(name), crc


def _inside(program: OpenFile, path: str) -> OpenFile:
    """A file below the root that a program was found in; raises OSError, ProbeError."""
    with file_access.rights():
        fd = open_in_root(program.root, path)
    try:
        check_kind(fd, path)
        if not (file_access.has_own_rights() or os.fstat(fd).st_mode & 0o004):
            raise ProbeError(f"{quote(path)} cannot be read by everybody", "")
        return OpenFile(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC), path)
    finally:
        os.close(fd)


def _is_trustworthy(debug: OpenFile, program: OpenFile, inside: bool) -> bool:
    """Whether nobody but root and the program's owner can have put anything into a debug file.

    Somebody may have mounted a root-owned file of another origin into a root of their own, where
    a program of the machine can be mounted too: there, both must be of the same mount.
    """
    owner = debug.stat.st_uid
    if debug.version[:2] == program.version[:2] or debug.stat.st_mode & 0o022:
        return False
    # On an overlay a breakpoint goes into the file below, which others run as well, and which may
    # be another person's than the owner that the overlay shows.
    if program.is_overlaid or debug.is_overlaid:
        return False
    if owner == _overflow_uid() or owner not in (0, program.stat.st_uid):
        return False
    return not inside or debug.mount == program.mount != ""


def _overflow_uid() -> int:
    """The uid that stands for all those that a user namespace does not know."""
    text = kernel.read_text("/proc/sys/kernel/overflowuid")
    return int(text) if text and text.strip().isdigit() else _OVERFLOW_UID


def _is_of(debug: OpenFile, elf: Elf) -> bool:
    """Whether a debug file was made of this build: another one's addresses would be wrong."""
    with Elf(debug) as other:
        if elf.build_id() or other.build_id():
            return elf.build_id() == other.build_id()
    crc = _link(elf)[1]
    return crc is not None and debug.size <= MOST_SECTION and _crc(debug) == crc


def _crc(file: OpenFile) -> int:
    crc, at = 0, 0
    while piece := file.read(_PIECE, at):
        crc, at = zlib.crc32(piece, crc), at + len(piece)
    return crc


def _unpacked(elf: Elf, packed: bytes) -> Iterator[Symbol]:
    """Symbols of .gnu_debugdata: an xz-compressed ELF file (Fedora's "MiniDebugInfo")."""
    import lzma

    fd = os.memfd_create("debugdata")
    try:
        if not _unpack(elf, packed, fd):
            return
        file, fd = OpenFile(fd, f"{elf.path} (.gnu_debugdata)"), -1
        with Elf(file) as inner:
            yield from inner.symbols()
    except lzma.LZMAError as error:
        if "emory" in str(error):
            limit = f"{MOST_MEMORY >> 20} MiB"
            raise elf.too_large("a .gnu_debugdata that takes much memory", limit) from error
    finally:
        if fd >= 0:
            os.close(fd)


def _unpack(elf: Elf, packed: bytes, fd: int) -> bool:
    """Write what was packed into a file; False if it is cut off. Raises ProbeError, LZMAError."""
    import lzma

    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_MEMORY)
    size, piece = 0, unpacker.decompress(packed, _PIECE)
    while piece:
        size += len(piece)
        if size > MOST_UNPACKED:
            limit = f"{MOST_UNPACKED >> 20} MiB"
            raise elf.too_large("a .gnu_debugdata that unpacks to more", limit)
        os.write(fd, piece)
        file_access.check_time()
        piece = b"" if unpacker.eof else unpacker.decompress(b"", _PIECE)
    return unpacker.eof
