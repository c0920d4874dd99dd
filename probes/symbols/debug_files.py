# SPDX-License-Identifier: Apache-2.0
"""Symbols that were taken out of a program: its debug file, else its .gnu_debugdata.

A debug file says where functions begin, so it is believed only if nobody but root and the owner
of the program can have written it, or put it where it is. It is found by build id, then by
.gnu_debuglink, as GDB does.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.host import file_access, safe_place
from probes.host.lookup import Found
from probes.host.open_file import OpenFile, reopened
from probes.symbols.elf import MOST_SECTION, Elf, Symbol

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
    if not _may_have_one(elf.file):
        return None
    owners = {0, elf.file.stat.st_uid} - {_overflow_uid()}
    for path in _candidates(elf, debug_root, owners):
        with suppress(ProbeError, OSError, ValueError):
            file = _opened(path, owners)
            if _is_trustworthy(file, elf.file, owners) and _is_of(file, elf):
                return file
    return None


def _may_have_one(program: OpenFile) -> bool:
    """Whether another file may say where the program's functions begin.

    On an overlay a breakpoint goes into the file below, which others run as well, and which may be
    another person's than the owner that the overlay shows. What runs with more rights than those
    of its user is traced by what it says of itself alone.
    """
    if program.is_overlaid or program.stat.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return False
    try:
        os.getxattr(program.fd, "security.capability")
    except OSError as error:
        return error.errno in (errno.ENODATA, errno.EOPNOTSUPP)
    return False


def _candidates(elf: Elf, debug_root: str, owners: Collection[int]) -> list[str]:
    """Paths that may be debug files, best first, as this process's root has them."""
    build_id = elf.build_id().hex()
    names = [f"{debug_root}/.build-id/{build_id[:2]}/{build_id[2:]}.debug"] if build_id else []
    link = _link(elf)[0]
    directory = _directory(elf.file, owners) if link and "/" not in link else None
    if directory is not None:
        names += [
            f"{directory}/.debug/{link}",
            f"{debug_root}{directory}/{link}",
            f"{directory}/{link}",
        ]
    return names


def _directory(program: OpenFile, owners: Collection[int]) -> str | None:
    """The folder that the open program lies in, None where others may have put it there.

    By the name that it was opened by, or in another root, it can lie anywhere.
    """
    path = os.readlink(program.link)
    try:
        with file_access.untrusted(), file_access.rights():
            fd = safe_place.opened(path, owners)
    except (OSError, ProbeError):
        return None
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    same = (found.st_dev, found.st_ino) == (program.stat.st_dev, program.stat.st_ino)
    return os.path.dirname(path) if same else None


def _link(elf: Elf) -> tuple[str, int | None]:
    """The file name of .gnu_debuglink, and the CRC of that file."""
    data = elf.data(elf.section(".gnu_debuglink"), MOST_SECTION >> 10)
    name, _, _ = data.partition(b"\0")
    at = len(name) + 4 & ~3
    crc = struct.unpack_from("<I", data, at)[0] if len(data) >= at + 4 else None
    return os.fsdecode(name), crc


def _opened(path: str, owners: Collection[int]) -> OpenFile:
    """A file that only the owners can have put there; raises OSError, ProbeError."""
    # Where the name was chosen by the file, no text of a target vouches for it.
    with file_access.untrusted(), file_access.rights():
        return reopened(path, Found(safe_place.opened(path, owners), -1))


def _is_trustworthy(debug: OpenFile, program: OpenFile, owners: Collection[int]) -> bool:
    """Whether nobody but root and the program's owner can have put anything into a debug file."""
    if debug.version[:2] == program.version[:2] or debug.stat.st_mode & 0o022:
        return False
    return debug.stat.st_uid in owners and not debug.is_overlaid


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
