# SPDX-License-Identifier: Apache-2.0
"""Loading compiled instructions and attaching them, by bpf(2) and perf_event_open(2) alone.

BCC only compiles: what it wrote is loaded here, so that one compilation serves any number
of targets (constants in the instructions are replaced) and every kernel and BCC alike.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from probes.bpf import bpf_syscall
from probes.bpf import kretprobe as returns
from probes.bpf.plan import Attach
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.host import memory_locks
from probes.host.traced_files import TracedFile

Instructions = Callable[[str], bytes]
"""The compiled instructions of a function, by its name."""

_LDDW, _JUMP = 0x18, 0x05
_KFUNC = 2
"""Makes a call one of a kernel function, by its number in the kernel's types."""
_BY_BTF = {"btf_tracepoint": 23, "fentry": bpf_syscall.ATTACH_FENTRY, "fexit": 25}
"""Attach types of the programs that the kernel knows the arguments of."""
_TYPES = {
    "raw_tracepoint": bpf_syscall.PROG_RAW_TRACEPOINT,
    "btf_tracepoint": bpf_syscall.PROG_TRACING,
    "tracepoint": bpf_syscall.PROG_TRACEPOINT,
    "kprobe": bpf_syscall.PROG_KPROBE,
    "kretprobe": bpf_syscall.PROG_KPROBE,
    "uprobe": bpf_syscall.PROG_KPROBE,
    "uretprobe": bpf_syscall.PROG_KPROBE,
    "fentry": bpf_syscall.PROG_TRACING,
    "fexit": bpf_syscall.PROG_TRACING,
    "timer": bpf_syscall.PROG_PERF_EVENT,
    "edge": bpf_syscall.PROG_RAW_TRACEPOINT,
}
USER = ("uprobe", "uretprobe")
"""What places of files are traced by."""
SWITCHED = ("raw_tracepoint", "btf_tracepoint", "tracepoint", "fentry", "fexit", "edge")
"""Kinds that can be attached in bursts, or belong to them, beside those of files and of the
kernel's functions."""
FUNCTIONS = ("kprobe", "kretprobe")
_DOCTOR = "run probetop doctor"


class Again(NamedTuple):
    """A recipe for attaching a program again, see `probes.ipc.messages.Recipe`.

    `program` is a descriptor, `file` what the `places` (offset, offset of the counter) are in.
    """

    kind: str
    program: int
    target: str = ""
    config: int = 0
    file: TracedFile | None = None
    places: tuple[tuple[int, int], ...] = ()


def patched(code: bytes, values: Mapping[int, int]) -> bytes:
    """Instructions in which 64-bit constants (the keys) are replaced by values.

    A 64-bit load is two instructions (struct bpf_insn), each with half of the constant.
    """
    result = bytearray(code)
    for at in range(0, len(code) - 8, 8):
        opcode, registers, _, low = struct.unpack_from("<BBhI", code, at)
        if opcode != _LDDW or registers >> 4:
            continue
        (high,) = struct.unpack_from("<I", code, at + 12)
        value = values.get(high << 32 | low)
        if value is not None:
            struct.pack_into("<I", result, at + 4, value & 0xFFFFFFFF)
            struct.pack_into("<I", result, at + 12, value >> 32)
    return bytes(result)


def undisturbed(code: bytes, disable: int, enable: int) -> bytes:
    """Instructions of one function during which no other thread gets the CPU; it returns 0.

    `disable` and `enable` are bpf_preempt_disable and bpf_preempt_enable in the kernel's
    types (from Linux 6.10). Where uprobes are hit, a thread may lose the CPU to one that runs
    the same program, and what the program writes is the CPU's: counters always, and from
    Linux 6.13 on its stack, for the kernel takes all of this type to be kprobes.
    """
    insn, call = bpf_syscall.insn, bpf_syscall.CALL
    body = bytearray(code)
    ends = len(code) // 8
    for number in range(ends):
        if body[8 * number] == bpf_syscall.EXIT:
            body[8 * number : 8 * number + 8] = insn(_JUMP, off=ends - number - 1)
    context, saved = 1, 6
    first = insn(bpf_syscall.MOV_REG, saved, context) + insn(call, src=_KFUNC, imm=disable)
    first += insn(bpf_syscall.MOV_REG, context, saved)
    return first + bytes(body) + insn(call, src=_KFUNC, imm=enable) + bpf_syscall.RETURN_0


def batches(wishes: Iterable[Attach]) -> list[list[Attach]]:
    """Neighbours together that one link can attach: one program at places of one file."""

    def key(pair: tuple[int, Attach]) -> object:
        number, wish = pair
        if wish.kind not in USER:
            return number
        return (wish.kind, wish.function, wish.path, wish.pid, wish.group, {**wish.patch})

    return [[wish for _, wish in pairs] for _, pairs in groupby(enumerate(wishes), key)]


class Attacher:
    """Loads programs, each variant once, and attaches them.

    `programs` are all that were loaded, by a name of their own; the caller closes them. `recipes`
    tell of each descriptor that keeps something attached how to attach it again.
    `function_id` gives the number of a function in the kernel's types; `multi` tells that
    this kernel attaches to many places by one link, which is detached as a whole: each alone
    takes the kernel a tenth of a second.
    """

    def __init__(
        self,
        instructions: Instructions,
        function_id: Callable[[str], int | None],
        multi: bool = False,
    ) -> None:
        self.programs: dict[str, int] = {}
        self.recipes: dict[int, Again] = {}
        self._instructions = instructions
        self._function_id = function_id
        self._multi = multi
        self._loaded: dict[object, int] = {}

    def attach(self, wish: Attach) -> int:
        """Load what is needed and attach it: the descriptor that keeps it attached.

        Raises ProbeError.
        """
        return self.attach_batch([wish])[0]

    def attach_batch(self, batch: Sequence[Attach]) -> list[int]:
        """As `attach`, for one of `batches`: one descriptor, or one for each wish."""
        first = batch[0]
        if first.file is not None:
            first.file.check()
            memory_locks.check(first.file)
        if self._multi and first.kind in USER and first.pid < 0:
            program = self._program(first, bpf_syscall.ATTACH_UPROBE_MULTI)
            places = [wish.offset for wish in batch], [wish.counter for wish in batch]
            returns = first.kind == "uretprobe"
            # Who is refused one by one is told which one, and why.
            with suppress(OSError):
                link = bpf_syscall.uprobe_multi_link(program, first.path, *places, returns)
                self._note(link, first, program, batch, "_multi")
                return [link]
        links: list[int] = []
        try:
            links.extend(self._attach(wish) for wish in batch)
        except ProbeError:
            for fd in links:
                os.close(fd)
            raise
        return links

    def _attach(self, wish: Attach) -> int:
        program = self._program(wish, _BY_BTF.get(wish.kind, 0))
        if wish.kind == "edge":
            link = os.dup(program)
            self.recipes[link] = Again(wish.kind, program, config=kernel.possible_cpus())
            return link
        try:
            if wish.kind == "raw_tracepoint":
                link = bpf_syscall.raw_tracepoint_open(program, wish.target)
                self._note(link, wish, program)
                return link
            if wish.kind in _BY_BTF:
                link = bpf_syscall.raw_tracepoint_open(program, None)
                self._note(link, wish, program)
                return link
            event = self._event(wish)
        except OSError as error:
            raise _refused(wish, error) from error
        try:
            bpf_syscall.perf_set_bpf(event, program)
            bpf_syscall.perf_enable(event)
        except OSError as error:
            os.close(event)
            raise _refused(wish, error) from error
        self._note(event, wish, program, [wish])
        return event

    def _note(
        self, link: int, wish: Attach, program: int, batch: Sequence[Attach] = (), multi: str = ""
    ) -> None:
        """Keep the recipe of a link, if it can be attached in bursts."""
        if wish.steady or wish.pid >= 0:
            return
        if wish.kind in USER and wish.file is not None:
            places = tuple((one.offset, one.counter) for one in batch)
            self.recipes[link] = Again(wish.kind + multi, program, file=wish.file, places=places)
        elif wish.kind in (*SWITCHED, *FUNCTIONS):
            number = _tracepoint_id(wish) if wish.kind == "tracepoint" else 0
            named = wish.kind in ("raw_tracepoint", *FUNCTIONS)
            self.recipes[link] = Again(wish.kind, program, wish.target if named else "", number)

    def forget(self) -> None:
        """Close all programs; those that are attached stay so until their events close."""
        for fd in self.programs.values():
            os.close(fd)
        self.programs.clear()
        self.recipes.clear()
        self._loaded.clear()

    def _program(self, wish: Attach, attach_type: int) -> int:
        # A tracing program is of one function, and of one of its ends.
        traced = (wish.kind, wish.target) if wish.kind in _BY_BTF else attach_type
        kind = "user" if wish.kind in USER else _TYPES[wish.kind]
        key = (wish.function, kind, traced, tuple(sorted(wish.patch.items())))
        if key not in self._loaded:
            fd = self._load(wish, attach_type)
            self._loaded[key] = fd
            name = wish.function
            self.programs[name if name not in self.programs else f"{name}.{fd}"] = fd
        return self._loaded[key]

    def _load(self, wish: Attach, attach_type: int) -> int:
        code = patched(self._instructions(wish.function), wish.patch)
        btf_id = self._btf_id(wish) if wish.kind in _BY_BTF else 0
        load = partial(
            bpf_syscall.prog_load,
            _TYPES[wish.kind],
            attach_type=attach_type,
            btf_id=btf_id,
            name=wish.function,
        )
        names = ("bpf_preempt_disable", "bpf_preempt_enable") if wish.kind in USER else ()
        ids = [number for name in names if (number := self._function_id(name)) is not None]
        try:
            if len(ids) == 2:
                with suppress(OSError):
                    return load(undisturbed(code, *ids))
            return load(code)
        except OSError as error:
            os.write(2, getattr(error, "log", "").encode(errors="replace"))
            if wish.kind in ("fentry", "fexit"):
                raise _refused(wish, error) from error
            why = f"the kernel refused the program {wish.function} ({error.strerror})"
            raise ProbeError(why, _DOCTOR) from error

    def _btf_id(self, wish: Attach) -> int:
        if wish.kind == "btf_tracepoint":
            found = self._function_id(f"btf_trace_{wish.target}")
            if found is None:
                why = f"this kernel's types have no tracepoint {wish.target}"
                raise ProbeError(why, _DOCTOR)
            return found
        found = self._function_id(wish.target)
        if found is None:
            why = f"{wish.target} is not in the kernel's types, which fentry needs"
            raise ProbeError(why, f"write kprobe:{wish.target}")
        return found

    def _event(self, wish: Attach) -> int:
        """The perf event whose occurrences run the program."""
        if wish.kind == "timer":
            kind, config = bpf_syscall.PERF_SOFTWARE, bpf_syscall.PERF_CPU_CLOCK
            return bpf_syscall.perf_event_open(kind, config, cpu=wish.cpu, period=wish.period)
        if wish.kind == "tracepoint":
            return bpf_syscall.perf_event_open(
                bpf_syscall.PERF_TRACEPOINT, _tracepoint_id(wish), cpu=0
            )
        number = returns.define(wish.target) if wish.kind == "kretprobe" else None
        if number is not None:
            with suppress(OSError):  # what was defined may have been tidied up just now
                return bpf_syscall.perf_event_open(bpf_syscall.PERF_TRACEPOINT, number, cpu=0)
        user = wish.kind in USER
        place = (wish.offset, wish.counter) if user else (0, 0)
        return probe_event(wish.kind, wish.path if user else wish.target, *place, wish.pid)


def probe_event(kind: str, name: str, offset: int = 0, counter: int = 0, pid: int = -1) -> int:
    """The perf event of a kprobe or uprobe, or of its returns; `name` is a function or a path.

    Raises ProbeError where the kernel has no such events, and OSError.
    """
    pmu = "uprobe" if kind.startswith("u") else "kprobe"
    number = kernel.read_text(f"/sys/bus/event_source/devices/{pmu}/type")
    if number is None:
        raise _absent(pmu)
    text = ctypes.create_string_buffer(name.encode(errors="surrogateescape"))
    return bpf_syscall.perf_event_open(
        int(number),
        kind.endswith("retprobe") | counter << 32,
        pid=pid,
        cpu=0 if pid < 0 else -1,
        config1=ctypes.addressof(text),
        config2=offset,
    )


def _tracepoint_id(wish: Attach) -> int:
    tracefs = kernel.tracefs()
    if tracefs is None:
        why = "tracefs is not mounted, and mounting it was refused"
        raise ProbeError(why, "mount -t tracefs tracefs /sys/kernel/tracing")
    category, _, name = wish.target.partition(":")
    text = kernel.read_text(Path(tracefs) / "events" / category / name / "id")
    if text is None:
        raise ProbeError(f"this kernel has no tracepoint {wish.target}", _DOCTOR)
    return int(text)


def _absent(pmu: str) -> ProbeError:
    if pmu == "kprobe":
        why = "this kernel was built without kprobes (CONFIG_KPROBES)"
        return ProbeError(why, "use a tracepoint, a preset or uprobe, or another kernel")
    why = "this kernel was built without uprobes (CONFIG_UPROBES)"
    return ProbeError(why, "use a tracepoint or a preset, or another kernel")


def _refused(wish: Attach, error: OSError) -> ProbeError:
    """Why an event refused the program, by what the errno means there."""
    what = f"{wish.kind.replace('_', ' ')} {wish.name or wish.target or wish.path}"
    number = error.errno
    if wish.kind in ("fentry", "fexit") and number in (errno.EPERM, errno.EOPNOTSUPP, 524):
        word = "EPERM" if number == errno.EPERM else "not supported"
        why = f"this kernel refuses fentry ({word}; lockdown, or an old kernel on this CPU)"
        return ProbeError(why, f"write kprobe:{wish.target}, if there are kprobes")
    if wish.kind == "raw_tracepoint" and number == errno.ENOENT:
        return ProbeError(f"this kernel has no raw tracepoint {wish.target}", _DOCTOR)
    if wish.kind in ("kprobe", "kretprobe") and number in (errno.EINVAL, errno.EADDRNOTAVAIL):
        why = f"the kernel lets no kprobe into {wish.target} (inlined, notrace or blacklisted)"
        return ProbeError(why, "trace what calls it, or what it calls")
    if number in (errno.EMFILE, errno.ENFILE):
        return ProbeError("too few file descriptors are free", "raise ulimit -n, or trace less")
    if number == errno.ENOSPC:
        return ProbeError("the kernel has no more probes or perf events to give", "trace less")
    return ProbeError(f"cannot attach to the {what} ({error.strerror})", _DOCTOR)
