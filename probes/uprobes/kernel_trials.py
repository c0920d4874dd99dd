# SPDX-License-Identifier: Apache-2.0
"""Tries what the kernel allows: each trial does the thing once, then undoes it.

A trial returns a short detail for people, or raises OSError with the kernel's errno
(a missing file included) or Unavailable with a reason. Nothing stays attached.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from probes.bpf import bpf_syscall
from probes.core import kernel
from probes.symbols.usdt import usdt_probes

EVENT_SOURCES = "/sys/bus/event_source/devices"

# Helper numbers of bpf(2).
_PROBE_READ_KERNEL = 113


class Unavailable(Exception):
    """The trial went wrong without an errno that says it; the message says why."""


class Untried(Exception):
    """There was nothing to try it on; the message says what was missing."""


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """Closes a descriptor at the end of a block."""
    try:
        yield fd
    finally:
        os.close(fd)


def jit() -> str:
    """Whether the kernel compiled a program that it loaded to machine code."""
    with closing(
        bpf_syscall.prog_load(bpf_syscall.PROG_RAW_TRACEPOINT, bpf_syscall.RETURN_0)
    ) as prog:
        if bpf_syscall.fdinfo(prog).get("prog_jited") != "1":
            raise Unavailable("programs load, but are interpreted")
    return "programs are compiled to machine code"


def btf() -> str:
    """Type information of the running kernel."""
    with open("/sys/kernel/btf/vmlinux", "rb") as file:
        if struct.unpack("=H", file.read(2))[0] != 0xEB9F:
            raise Unavailable("/sys/kernel/btf/vmlinux holds no BTF")
        return f"/sys/kernel/btf/vmlinux, {os.fstat(file.fileno()).st_size / 1e6:.1f} MB"


def kernel_memory() -> str:
    """Loads a program that reads kernel memory, which lockdown=confidentiality refuses."""
    code = (
        bpf_syscall.insn(bpf_syscall.MOV_REG, 1, 10)
        + bpf_syscall.insn(bpf_syscall.ADD_IMM, 1, imm=-8)
        + bpf_syscall.insn(bpf_syscall.MOV_IMM, 2, imm=8)
        + bpf_syscall.insn(bpf_syscall.MOV_IMM, 3, imm=0)
        + bpf_syscall.insn(bpf_syscall.CALL, imm=_PROBE_READ_KERNEL)
        + bpf_syscall.RETURN_0
    )
    os.close(bpf_syscall.prog_load(bpf_syscall.PROG_RAW_TRACEPOINT, code))
    return f"lockdown: {kernel.lockdown() or 'none seen'}"


def raw_tracepoint() -> str:
    """Attaches to the raw tracepoint that counts system calls."""
    with closing(
        bpf_syscall.prog_load(bpf_syscall.PROG_RAW_TRACEPOINT, bpf_syscall.RETURN_0)
    ) as prog:
        os.close(bpf_syscall.raw_tracepoint_open(prog, "sys_exit"))
    return "attached to sys_exit"


def tracefs() -> str:
    """Finds tracefs, or mounts it."""
    before = kernel.tracefs(mount=False)
    found = before or kernel.tracefs()
    if found is None:
        raise Unavailable("not mounted, and mounting it was refused")
    return str(found) if before else f"{found}, mounted just now"


def tracepoint() -> str:
    """Attaches to an ordinary tracepoint through a perf event."""
    root = kernel.tracefs()
    if root is None:
        raise Unavailable("tracefs is missing")
    number = int((root / "events/sched/sched_process_exec/id").read_text())
    with closing(bpf_syscall.prog_load(bpf_syscall.PROG_TRACEPOINT, bpf_syscall.RETURN_0)) as prog:
        event = bpf_syscall.perf_event_open(
            bpf_syscall.PERF_TRACEPOINT, number, cpu=kernel.online_cpus()[0]
        )
        with closing(event):
            bpf_syscall.perf_set_bpf(event, prog)
    return "attached to sched:sched_process_exec"


def pmu_number(name: str) -> int:
    """The perf type number of a dynamic PMU; raises FileNotFoundError if there is none."""
    with open(f"{EVENT_SOURCES}/{name}/type", encoding="utf-8") as file:
        return int(file.read())


def _attach_probe(
    pmu: str, target: str, offset: int, pid: int = -1, cpu: int = -1, counter: int = 0
) -> None:
    """Attaches a program to a kprobe or uprobe PMU's event, and detaches it.

    For kprobes `target` is a function, for uprobes a file with `offset` into it;
    `counter` is the offset of a USDT probe's reference counter.
    """
    number = pmu_number(pmu)
    name = ctypes.create_string_buffer(target.encode())
    with closing(bpf_syscall.prog_load(bpf_syscall.PROG_KPROBE, bpf_syscall.RETURN_0)) as prog:
        event = bpf_syscall.perf_event_open(
            number,
            counter << 32,
            pid=pid,
            cpu=cpu,
            config1=ctypes.addressof(name),
            config2=offset,
        )
        with closing(event):
            bpf_syscall.perf_set_bpf(event, prog)


def kprobe() -> str:
    """Attaches to the entry of a kernel function that hardly ever runs."""
    function = "kernel_halt"
    try:
        _attach_probe("kprobe", function, 0, cpu=kernel.online_cpus()[0])
    except FileNotFoundError as error:
        raise Unavailable("this kernel has no kprobes (CONFIG_KPROBE_EVENTS)") from error
    return f"attached to {function}"


def libbpf() -> ctypes.CDLL:
    """The libbpf shared library, silenced; raises Unavailable without one."""
    for name in ("libbpf.so.1", "libbpf.so.0"):
        try:
            library = ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
        library.libbpf_set_print(None)
        return library
    raise Unavailable("the libbpf library is not installed")


def libbpf_version() -> str:
    """libbpf's version, for example "1.1"."""
    library = libbpf()
    return f"{library.libbpf_major_version()}.{library.libbpf_minor_version()}"


def fentry() -> str:
    """Attaches to a function that the kernel keeps for testing this, else to vfs_read."""
    library = libbpf()
    library.libbpf_find_vmlinux_btf_id.argtypes = [ctypes.c_char_p, ctypes.c_int]
    for function in ("bpf_fentry_test1", "vfs_read"):
        number = library.libbpf_find_vmlinux_btf_id(function.encode(), bpf_syscall.ATTACH_FENTRY)
        if number > 0:
            break
    else:
        raise OSError(-number, os.strerror(-number))
    prog = bpf_syscall.prog_load(
        bpf_syscall.PROG_TRACING,
        bpf_syscall.RETURN_0,
        attach_type=bpf_syscall.ATTACH_FENTRY,
        btf_id=number,
    )
    with closing(prog):
        os.close(bpf_syscall.raw_tracepoint_open(prog, None))
    return f"attached to {function}"


def file_offset(address: int) -> tuple[str, int]:
    """The file that is mapped at an address of this process, and the offset into it."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            span, _, offset, _, _, *path = line.split(maxsplit=5)
            start, end = (int(part, 16) for part in span.split("-"))
            if start <= address < end and path and path[0].startswith("/"):
                return path[0].strip(), address - start + int(offset, 16)
    raise Unavailable("no file is mapped where the C library's getppid is")


def _attach_to_code(path: str, offset: int, counter: int = 0) -> None:
    """Attaches to a place of a file in this process only, and detaches.

    Kernels that attach to many places at once ask for fewer capabilities for that.
    """
    pid = os.getpid()
    try:
        _attach_probe("uprobe", path, offset, pid=pid, counter=counter)
    except PermissionError as error:
        try:
            program = bpf_syscall.prog_load(
                bpf_syscall.PROG_KPROBE,
                bpf_syscall.RETURN_0,
                attach_type=bpf_syscall.ATTACH_UPROBE_MULTI,
            )
        except OSError:
            raise error from None
        with closing(program):
            try:
                link = bpf_syscall.uprobe_multi_link(program, path, [offset], [counter], False, pid)
            except OSError:
                raise error from None
            os.close(link)


def uprobe() -> str:
    """Attaches to getppid of the C library, in this process only."""
    getppid = ctypes.cast(ctypes.CDLL(None).getppid, ctypes.c_void_p).value or 0
    path, offset = file_offset(getppid)
    try:
        _attach_to_code(path, offset)
    except FileNotFoundError as error:
        raise Unavailable("this kernel has no uprobes (CONFIG_UPROBE_EVENTS)") from error
    return f"attached to getppid of {os.path.basename(path)}"


def mapped_files() -> list[str]:
    """The files that this process executes code of: its program and its libraries."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        fields = (line.split(maxsplit=5) for line in maps)
        paths = [f[5].strip() for f in fields if len(f) == 6 and "x" in f[1]]
    return list(dict.fromkeys(path for path in paths if path.startswith("/")))


def usdt() -> str:
    """Attaches to a static probe of a file that this process runs, in this process only."""
    found = ((path, probe) for path in mapped_files() for probe in usdt_probes(path))
    path, probe = next(found, ("", None))
    counters = os.path.exists(f"{EVENT_SOURCES}/uprobe/format/ref_ctr_offset")
    if not counters:
        raise Unavailable("this kernel's uprobes have no reference counters (before Linux 4.20)")
    if probe is None:
        raise Untried("no program or library of this process has static probes to try it on")
    _attach_to_code(path, probe.offset, probe.semaphore)
    return f"attached to {probe.provider}:{probe.name} of {os.path.basename(path)}"


def ring_buffer() -> str:
    """Makes the smallest ring buffer and maps its consumer page."""
    with closing(bpf_syscall.map_create(bpf_syscall.MAP_RINGBUF, 0, 0, mmap.PAGESIZE)) as ring:
        mmap.mmap(ring, mmap.PAGESIZE).close()
    return "made and mapped"


def mmapable_array() -> str:
    """Makes an array map that user space reads as memory, and reads it."""
    array = bpf_syscall.map_create(bpf_syscall.MAP_ARRAY, 4, 8, 512, bpf_syscall.MAP_MMAPABLE)
    with closing(array), mmap.mmap(array, 4096, prot=mmap.PROT_READ) as memory:
        if any(memory[:]):
            raise Unavailable("a new array is not zero")
    return "made, mapped and read"


def run_statistics() -> str:
    """Switches run-time statistics on and off."""
    os.close(bpf_syscall.enable_stats())
    return "switched on and off"


def _count_cycles() -> tuple[int, int]:
    """(cycles, nanoseconds that the counter ran) of a short loop in user space."""
    event = bpf_syscall.perf_event_open(
        bpf_syscall.PERF_HARDWARE,
        bpf_syscall.PERF_CPU_CYCLES,
        pid=0,
        flags=bpf_syscall.PERF_EXCLUDE_KERNEL | bpf_syscall.PERF_EXCLUDE_HV,
        read_format=bpf_syscall.PERF_TIMES,
    )
    with closing(event):
        sum(range(100_000))
        cycles, _, running = struct.unpack("=3Q", os.read(event, 24))
    return cycles, running


def hardware_pmu() -> str:
    """Counts CPU cycles; raises Unavailable with what the errno means."""
    reasons = {
        errno.ENOENT: "the CPU shows no hardware counters, as in most virtual machines",
        errno.EOPNOTSUPP: "the CPU shows no hardware counters, as in most virtual machines",
        errno.ENODEV: "the CPU shows no hardware counters",
        errno.ENOSYS: "this kernel has no perf events (CONFIG_PERF_EVENTS)",
        errno.EBUSY: "the counters are in use, for example by the NMI watchdog",
    }
    try:
        cycles, running = _count_cycles()
    except OSError as error:
        if error.errno not in reasons:
            raise
        name = errno.errorcode[error.errno]
        raise Unavailable(f"perf_event_open said {name}: {reasons[error.errno]}") from error
    if not cycles:
        raise Unavailable("the cycle counter opens, but stays at 0")
    return f"{cycles / max(running, 1):.2f} cycles a nanosecond"
