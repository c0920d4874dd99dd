# SPDX-License-Identifier: Apache-2.0
"""bpf(2) and perf_event_open(2) as they are, through ctypes: no libbpf, no BCC.

Every call returns a descriptor that the caller closes, or raises OSError with the
kernel's errno. Structures and numbers are those of include/uapi/linux/bpf.h and
perf_event.h; fields after the last one named here are zero.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Sequence
from functools import cache

# System call numbers of bpf and perf_event_open by uname(2)'s machine.
_NUMBERS = {"x86_64": (321, 298), "aarch64": (280, 241)}

# Commands of bpf(2).
_MAP_CREATE, _MAP_UPDATE, _PROG_LOAD, _PROG_TEST_RUN = 0, 2, 5, 10
_MAP_GET_FD_BY_ID, _INFO = 14, 15
_RAW_TRACEPOINT_OPEN, _MAP_FREEZE, _LINK_CREATE, _ENABLE_STATS = 17, 22, 28, 32

MAP_ARRAY, MAP_PERF_ARRAY, MAP_RINGBUF = 2, 4, 27
MAP_MMAPABLE = 1 << 10

PROG_KPROBE, PROG_TRACEPOINT, PROG_PERF_EVENT = 2, 5, 7
PROG_RAW_TRACEPOINT, PROG_TRACING = 17, 26
ATTACH_FENTRY, ATTACH_UPROBE_MULTI = 24, 48

PERF_HARDWARE, PERF_SOFTWARE, PERF_TRACEPOINT, PERF_HW_CACHE, PERF_RAW = 0, 1, 2, 3, 4
PERF_CPU_CYCLES = 0
PERF_CPU_CLOCK = 0
PERF_DISABLED = 1 << 0
PERF_EXCLUDE_USER, PERF_EXCLUDE_KERNEL, PERF_EXCLUDE_HV = 1 << 4, 1 << 5, 1 << 6
PERF_TIMES = 3
"""read_format: the count, the time enabled and the time running, 64 bits each."""

_IOC_ENABLE, _IOC_SET_BPF = 0x2400, 0x40042408
_FLAG_FD_CLOEXEC = 8
_ATTR_SIZE = 112  # PERF_ATTR_SIZE_VER5, kernel 4.1
_LOG_SIZE = 1 << 18
_RUN_ON_CPU = 1  # BPF_F_TEST_RUN_ON_CPU, kernel 5.10
_LOAD_TRIES = 5


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """One BPF instruction: opcode, registers, offset, immediate."""
    return struct.pack("<BBhi", code, dst | src << 4, off, imm)


MOV_IMM, MOV_REG, ADD_IMM, CALL, EXIT = 0xB7, 0xBF, 0x07, 0x85, 0x95
RETURN_0 = insn(MOV_IMM, 0) + insn(EXIT)
"""The smallest program: r0 = 0; exit."""


@cache
def _numbers() -> tuple[int, int]:
    machine = os.uname().machine
    if machine not in _NUMBERS:
        raise OSError(errno.ENOSYS, f"no system call numbers known for {machine}")
    return _NUMBERS[machine]


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _syscall(which: int, *args: object) -> int:
    result = int(_libc().syscall(ctypes.c_long(_numbers()[which]), *args))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return _syscall(0, ctypes.c_long(command), buffer, ctypes.c_ulong(len(attr)))


def map_create(
    kind: int, key: int, value: int, entries: int, flags: int = 0, name: str = "probetop"
) -> int:
    """A map of `kind` (MAP_*) with sizes in bytes; returns its descriptor."""
    label = name.encode()[:15]
    attr = struct.pack("=5I2I16s28x", kind, key, value, entries, flags, 0, 0, label)
    return _bpf(_MAP_CREATE, attr)


def map_update(fd: int, key: int, value: int) -> None:
    """Sets the entry of a map whose keys and values have 32 bits, such as descriptors."""
    words = [ctypes.c_uint32(number) for number in (key, value)]
    addresses = [ctypes.addressof(word) for word in words]
    _bpf(_MAP_UPDATE, struct.pack("=2I3Q", fd, 0, *addresses, 0))


def map_freeze(fd: int) -> None:
    """Makes a map read-only for all of user space, for good; programs still write to it."""
    _bpf(_MAP_FREEZE, struct.pack("=I", fd))


def map_id(fd: int) -> int:
    """The kernel's number of a map."""
    number: int = struct.unpack_from("=2I", _info(fd, 8))[1]
    return number


def map_exists(number: int) -> bool:
    """Whether somebody holds the map of this number; raises OSError without CAP_SYS_ADMIN."""
    try:
        os.close(_bpf(_MAP_GET_FD_BY_ID, struct.pack("=3I", number, 0, 0)))
    except FileNotFoundError:
        return False
    return True


def run_stats(prog: int) -> tuple[int, int, int]:
    """Runs of a program while they were counted, their ns, and runs that were left out.

    Left out are events during which the program ran on the same CPU already (from Linux 5.12).
    """
    nanoseconds, count, missed = struct.unpack_from("=3Q", _info(prog, 216), 192)
    return count, nanoseconds, missed


def _info(fd: int, size: int) -> bytes:
    """The first `size` bytes of struct bpf_prog_info, or of a map; unknown ones are zero."""
    buffer = ctypes.create_string_buffer(size)
    _bpf(_INFO, struct.pack("=2IQ", fd, size, ctypes.addressof(buffer)))
    return buffer.raw


class VerifierError(OSError):
    """A program was refused; `log` is what the verifier said, perhaps nothing."""

    log = ""


def prog_load(
    kind: int,
    insns: bytes,
    licence: str = "GPL",
    attach_type: int = 0,
    btf_id: int = 0,
    kern_version: int = 0,
    name: str = "probetop",
) -> int:
    """Loads a program of `kind` (PROG_*); returns its descriptor, raises VerifierError."""
    code = ctypes.create_string_buffer(insns, len(insns))
    text = ctypes.create_string_buffer(licence.encode())
    # The kernel takes 15 characters of [A-Za-z0-9_.]; longer ones are cut, not refused.
    label = name.encode()[:15]
    log = ctypes.create_string_buffer(_LOG_SIZE)
    addresses = [ctypes.addressof(item) for item in (code, text, log)]

    def attr(level: int) -> bytes:
        head = struct.pack("=2I2Q", kind, len(insns) // 8, *addresses[:2])
        logging = struct.pack("=2IQ", level, _LOG_SIZE if level else 0, addresses[2] * level)
        names = struct.pack("=2I16sI", kern_version, 0, label, 0)
        btf = struct.pack("=3IQ2IQ4I", attach_type, 0, 0, 0, 0, 0, 0, 0, btf_id, 0, 0)
        return head + logging + names + btf

    first = None
    for _ in range(_LOAD_TRIES):
        try:
            return _bpf(_PROG_LOAD, attr(0))
        except OSError as refused:
            first = refused
            if refused.errno != errno.EAGAIN:  # a signal came while the verifier ran
                break
    assert first is not None
    # Only a refused program pays for the verifier's log.
    try:
        return _bpf(_PROG_LOAD, attr(1))
    except OSError as again:
        # A log that is cut short must not hide why the program was refused.
        told = first if again.errno == errno.ENOSPC else again
        error = VerifierError(told.errno, told.strerror)
        error.log = log.value.decode(errors="replace")
        raise error from None


def run_on_cpu(prog: int, cpu: int, args: Sequence[int]) -> None:
    """Runs a raw-tracepoint program once on a CPU, with these arguments, and waits for its end.

    There it runs in an interrupt: the current task is the one that was interrupted. Raises
    OSError (ENXIO) for a CPU that is not there.
    """
    given = (ctypes.c_uint64 * len(args))(*args)
    sizes = struct.pack("=2I", ctypes.sizeof(given), 0)
    head = struct.pack("=4I2Q2I", prog, 0, 0, 0, 0, 0, 0, 0)
    context = struct.pack("=2Q2I", ctypes.addressof(given), 0, _RUN_ON_CPU, cpu)
    _bpf(_PROG_TEST_RUN, head + sizes + context)


def raw_tracepoint_open(prog: int, name: str | None) -> int:
    """Attaches a program to a raw tracepoint (None: to its BTF function); returns the link."""
    text = ctypes.create_string_buffer(name.encode()) if name else None
    address = ctypes.addressof(text) if text else 0
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("=QII", address, prog, 0))


def link_create(prog: int, target: int, attach_type: int, flags: int = 0) -> int:
    """Attaches a program to a target descriptor, or 0 for its BTF function; returns the link."""
    return _bpf(_LINK_CREATE, struct.pack("=4I32x", prog, target, attach_type, flags))


def uprobe_multi_link(
    prog: int,
    path: str,
    offsets: Sequence[int],
    counters: Sequence[int],
    returns: bool,
    pid: int = 0,
) -> int:
    """Attaches a program to places of a file at once (Linux 6.6); returns the link.

    `counters` are offsets of reference counters, 0 for none; `pid` a process, 0 for all. The
    program's attach type is ATTACH_UPROBE_MULTI.
    """
    name = ctypes.create_string_buffer(path.encode())
    arrays = [(ctypes.c_uint64 * len(row))(*row) for row in (offsets, counters)]
    addresses = [ctypes.addressof(name), *map(ctypes.addressof, arrays)]
    head = struct.pack("=4I", prog, 0, ATTACH_UPROBE_MULTI, 0)
    return _bpf(
        _LINK_CREATE, head + struct.pack("=4Q4I", *addresses, 0, len(offsets), returns, pid, 0)
    )


def enable_stats() -> int:
    """Counts every BPF program's runs and run time until the descriptor is closed."""
    return _bpf(_ENABLE_STATS, struct.pack("=I", 0))


def perf_event_open(
    kind: int,
    config: int,
    *,
    pid: int = -1,
    cpu: int = -1,
    config1: int = 0,
    config2: int = 0,
    flags: int = 0,
    read_format: int = 0,
    period: int = 0,
) -> int:
    """A perf event of `kind` (PERF_* or a PMU's number); returns its descriptor.

    `flags` are PERF_DISABLED and its like; `config1` and `config2` may be addresses,
    which must stay valid during the call. Every `period` occurrences it overflows.
    """
    head = struct.pack("=2I2Q", kind, _ATTR_SIZE, config, period)
    attr = head + struct.pack("=3Q2I2Q", 0, read_format, flags, 0, 0, config1, config2)
    buffer = ctypes.create_string_buffer(attr, _ATTR_SIZE)
    integers: Iterable[int] = (pid, cpu, -1)
    return _syscall(
        1, buffer, *(ctypes.c_long(i) for i in integers), ctypes.c_ulong(_FLAG_FD_CLOEXEC)
    )


def perf_set_bpf(event: int, prog: int) -> None:
    """Runs a program at every occurrence of a perf event, until the event is closed."""
    fcntl.ioctl(event, _IOC_SET_BPF, prog)


def perf_enable(event: int) -> None:
    """Starts a perf event that was opened with PERF_DISABLED."""
    fcntl.ioctl(event, _IOC_ENABLE, 0)


def fdinfo(fd: int) -> dict[str, str]:
    """The fields that /proc tells of a descriptor of this process, for example prog_jited."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8") as file:
        pairs = (line.partition(":") for line in file)
        return {name.strip(): value.strip() for name, _, value in pairs}
