# SPDX-License-Identifier: Apache-2.0
"""Empty functions of our own, to find out what a uprobe itself adds to a measured call.

What a uprobe costs depends on the instruction that it replaces: some are emulated by the
kernel (below a microsecond), others executed out of line in single steps (several), and the
time of that is inside of what is measured. So there is one empty function for each kind.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.host.open_file import OpenFile, opened
from probes.symbols.binaries import FilePlace

PUSH, ENDBR, OTHER = "uprobe push", "uprobe endbr", "uprobe other"
KINDS = (PUSH, ENDBR, OTHER)
NOP5 = "uprobe 5-byte nop"
"""A kind that is not measured, but tried: see `probes.uprobes.harm_trials`."""
OWN = " to its own return"
"""Behind one of KINDS: timed by a uprobe at the return instruction, not by a return probe."""

# Machine code, each function 16 bytes apart: first instruction of its kind, then a return.
_X86 = {
    PUSH: b"\x55\x5d\xc3",  # push %rbp; pop %rbp; ret
    ENDBR: b"\xf3\x0f\x1e\xfa\xc3",  # endbr64; ret
    OTHER: b"\x31\xc0\xc3",  # xor %eax,%eax; ret
    NOP5: b"\x0f\x1f\x44\x00\x00\xc3",  # nopl 0(%rax,%rax); ret
}
_ARM = dict.fromkeys((*KINDS, NOP5), b"\x00\x00\x80\xd2\xc0\x03\x5f\xd6")  # mov x0,#0; ret


def kind_of(source: str | OpenFile, offset: int) -> str:
    """Which of KINDS the instruction at an offset of a file is."""
    if kernel.arch() != "x86_64":
        return OTHER
    try:
        first = opened(source).read(4, offset)
    except ProbeError:
        return OTHER
    if first.startswith(b"\xf3\x0f\x1e\xfa"):
        return ENDBR
    # push of a register, of r8 to r15, and nop are emulated
    pushed = first[1:2] if first.startswith(b"\x41") else first[:1]
    return PUSH if pushed and (0x50 <= pushed[0] <= 0x57 or first[:1] == b"\x90") else OTHER


def return_at(kind: str) -> int:
    """How many bytes behind its beginning an empty function's return instruction is."""
    return len(_X86[kind]) - 1 if kernel.arch() == "x86_64" else 4


def function(kind: str) -> tuple[FilePlace, Callable[[], object]]:
    """Where an empty function of a kind is, and the function; raises ProbeError, OSError."""
    code = (_X86 if kernel.arch() == "x86_64" else _ARM)[kind]
    fd = os.memfd_create("probetop-empty", 0)
    os.write(fd, code.ljust(mmap.PAGESIZE, b"\0"))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 5]
    address = libc.mmap(None, mmap.PAGESIZE, 5, mmap.MAP_PRIVATE, fd, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise ProbeError("this kernel lets nobody execute a file in memory", "")
    place = FilePlace(f"/proc/{os.getpid()}/fd/{fd}", kind, 0)
    return place, ctypes.CFUNCTYPE(ctypes.c_int)(address)


def release(place: FilePlace, function: Callable[[], object]) -> None:
    """Unmap and close what `function` made; it must not be called any more."""
    libc = ctypes.CDLL(None)
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.munmap(ctypes.cast(function, ctypes.c_void_p), mmap.PAGESIZE)  # type: ignore[arg-type]
    os.close(int(place.path.rpartition("/")[2]))
