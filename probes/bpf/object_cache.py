# SPDX-License-Identifier: Apache-2.0
"""Compiled programs and the maps that they use, as they can be kept in a file.

The compiler takes half a second and 130 MB for each probe, and what it makes depends on the
source, the flags and itself alone. So it is kept below /var/cache, where only root may write,
and the next start needs no compiler. Nothing is trusted that anybody else could have written.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

FORMAT = 1
"""Raised when the layout of a file, or what is made of a source, changes."""
DIRECTORY = Path("/var/cache/probetop")
MOST_FILES = 64
_MOST_BYTES = 1 << 24
_LDDW, _MAP_FD = 0x18, 1
_CALL, _KERNEL_FUNCTION = 0x85, 2
KERNEL_FUNCTIONS = 1 << 24
"""Added to the type id of a kernel function, the number of a helper that stands for it."""


class MapShape(NamedTuple):
    """What a map is made of: BPF_MAP_TYPE_*, sizes of key and value in bytes, BPF_F_*."""

    name: str
    kind: int
    key: int
    value: int
    entries: int
    flags: int


class Compiled(NamedTuple):
    """Instructions by function, in which a map is its number in `maps`."""

    maps: tuple[MapShape, ...]
    code: Mapping[str, bytes]


def with_maps(code: bytes, numbers: Mapping[int, int]) -> bytes:
    """Instructions whose references to maps are replaced; raises KeyError for an unknown one.

    A reference is a 64-bit load with a source register of BPF_PSEUDO_MAP_FD.
    """
    result = bytearray(code)
    skip = False
    for at in range(0, len(code) - 8, 8):
        opcode, registers, _, value = struct.unpack_from("<BBhI", code, at)
        wide = opcode == _LDDW and not skip
        if wide and registers >> 4 == _MAP_FD:
            struct.pack_into("<I", result, at + 4, numbers[value])
        skip = wide
    return bytes(result)


def with_functions(code: bytes) -> bytes:
    """Instructions that call the kernel's functions, which no compiler of BCC 0.26 can say."""
    result = bytearray(code)
    skip = False
    for at in range(0, len(code) - 7, 8):
        opcode, registers, _, value = struct.unpack_from("<BBhI", code, at)
        call = opcode == _CALL and not skip and not registers
        if call and value & 0xFF000000 == KERNEL_FUNCTIONS:
            number = value - KERNEL_FUNCTIONS
            struct.pack_into("<BBhI", result, at, _CALL, _KERNEL_FUNCTION << 4, 0, number)
        skip = opcode == _LDDW and not skip
    return bytes(result)


def key_of(source: str, flags: Sequence[str], compiler: str) -> str:
    """A file's name: the same for the same input only."""
    text = json.dumps([FORMAT, source, list(flags), compiler])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def load(key: str, directory: Path | None = None) -> Compiled | None:
    """What was kept under this key; None if there is nothing, or nothing to be trusted."""
    path = (directory or DIRECTORY) / key
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not (_is_ours(path.parent) and _is_ours(fd)):
            return None
        data = os.pread(fd, _MOST_BYTES, 0)
        with suppress(OSError):
            os.utime(fd)  # what was used last is removed last
    finally:
        os.close(fd)
    try:
        return _unpacked(data)
    except (ValueError, TypeError, KeyError, zlib.error):
        return None


def store(key: str, compiled: Compiled, directory: Path | None = None) -> None:
    """Keep it, if that is possible; the oldest files beyond MOST_FILES are removed."""
    directory = directory or DIRECTORY
    with suppress(OSError):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(directory):
            return
        temporary = directory / f".{os.getpid()}"
        fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(_packed(compiled))
            temporary.rename(directory / key)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _prune(directory)


def _is_ours(place: Path | int) -> bool:
    """Whether nobody but root could have written here."""
    with suppress(OSError):
        found = os.stat(place)
        return found.st_uid == 0 and not found.st_mode & 0o022
    return False


def _prune(directory: Path) -> None:
    files = [(path.stat().st_mtime_ns, path) for path in directory.iterdir()]
    for _, path in sorted(files)[:-MOST_FILES]:
        path.unlink(missing_ok=True)


def _packed(compiled: Compiled) -> bytes:
    code = {name: base64.b64encode(data).decode() for name, data in compiled.code.items()}
    body = zlib.compress(json.dumps({"maps": compiled.maps, "code": code}).encode(), 1)
    return hashlib.sha256(body).digest() + body


def _unpacked(data: bytes) -> Compiled:
    """Raises ValueError or its like for what is damaged."""
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise ValueError("damaged")
    content = json.loads(zlib.decompress(data[32:]))
    maps = tuple(MapShape(*shape) for shape in content["maps"])
    code = {name: base64.b64decode(text) for name, text in content["code"].items()}
    return Compiled(maps, code)
