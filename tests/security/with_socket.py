# SPDX-License-Identifier: Apache-2.0
"""Attacks by somebody who has taken over the unprivileged side, and so the link to the broker."""

from __future__ import annotations

import ctypes
import lzma
import mmap
import os
import random
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from probes.bpf import bpf_syscall
from probes.bpf.plan import Loaded
from probes.core.histogram import BUCKETS
from probes.execs.probe import ExecProbe
from probes.ipc import packets
from probes.ipc.messages import Answer, convert
from tests.security.attack import MOST_MEMORY, Attack, Compromised
from tests.security.prey import SECRET
from tests.unit.elf_file import DATA, FUNC, GLOBAL, ElfFile, Row, usdt_note

HISTOGRAM = 4 * 8 + 4 * BUCKETS
"""Bytes of a target's histogram, as in include/hist.h."""
ARGUMENT = "--password=of-somebody"
CONTROL_PAGES, RING_BUFFERS = ("control", "slots", "handover"), ("crowded", "events")
LOADS: tuple[tuple[str, dict[str, object]], ...] = (
    ("syscalls", {"latency": True}),
    ("execs", {}),
    ("latency", {"targets": ["runq", "uprobe:libc:malloc"]}),
    ("pmc", {"set": "base", "mode": "all"}),
)


def inside_an_instruction(it: Compromised) -> str:
    """A breakpoint in the middle of an instruction of a setuid program changes what it does."""
    prey = it.prey
    offsets = [at - prey.begin for at in prey.inside]
    targets = [f"uprobe:{prey.guard}:permitted+{at}" for at in offsets]
    targets += [f"uprobe:{prey.guard}:{hex(at)}" for at in prey.inside]
    for some in (targets[n : n + 100] for n in range(0, len(targets), 100)):
        answer = it.load(*some)
        if answer["ok"] and answer["facts"]["targets"]:
            return f"attached to {[one['spec'] for one in answer['facts']['targets']]}"
    return ""


def static_probe_without_its_nop(it: Compromised) -> str:
    """A file of ours names a static probe where another instruction is."""
    path = it.prey.hostile / "usdt"
    path.write_bytes(
        ElfFile(
            symtab=[("f", FUNC, GLOBAL, 0, 64)], notes=usdt_note("p", "n", 8), code=b"\x55" * 64
        ).build()
    )
    answer = it.load(f"usdt:{path}:p:n")
    return "attached" if answer["ok"] and answer["facts"]["targets"] else it.alive()


def a_link_that_turns(it: Compromised) -> str:
    """A path leads to our file when it is read, and to the setuid program when it is attached."""
    prey = it.prey
    mine, link = prey.hostile / "mine", prey.hostile / "link"
    mine.write_bytes(ElfFile(symtab=[("f", FUNC, GLOBAL, 3, 61)]).build())
    mine.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        for n in range(200_000):
            with suppress(OSError):
                os.symlink((mine, prey.guard)[n % 2], f"{link}.new")
                os.replace(f"{link}.new", link)
        os._exit(0)
    other = os.stat(prey.guard).st_ino
    try:
        for _ in range(12):
            answer = it.load(f"uprobe:{link}:f")
            targets = answer["facts"]["targets"] if answer["ok"] else []
            if any(inode == other for one in targets for _, _, inode in one["files"]):
                return "attached to the setuid program"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return it.alive()


def what_is_private(it: Compromised) -> str:
    """Errors and searches that tell of files below a folder that we may not search."""
    private, found = it.prey.private, []
    for name in ("exists", "missing"):
        answer = it.load(f"uprobe:{private}/{name}:permitted")
        found.append(str(answer["facts"]["errors"]).replace(name, "NAME"))
    if found[0] != found[1]:
        return f"exists and is missing differ: {found}"
    for path in (it.prey.top / "script", private / "script"):
        if SECRET in str(it.load(f"uprobe:{path}:f")):
            return "the first line of a private script"
    for query in (f"{private}/", f"uprobe:{private}/ex", "/root/", "uprobe:/root/."):
        answer, _ = it.ask(op="search", query=query)
        told = [spec for spec, *_ in answer.get("found", []) if spec != query]
        if any(str(private) in spec or "/root/" in spec for spec in told):
            return f"{query} lists {told[:3]}"
    return ""


def a_pid_that_is_a_path(it: Compromised) -> str:
    """A process id becomes part of a path below /proc."""
    lure = it.prey.hostile / "lure"
    (lure / "root").mkdir(parents=True, exist_ok=True)
    for pid in (f"../{lure}", "self/../..", -1, 2**40, True, 1.5, [1]):
        answer = it.load("uprobe:libc:malloc", pid=pid)
        if answer["ok"]:
            return f"pid {pid!r} was taken"
    return it.alive()


def descriptors(it: Compromised) -> str:
    """What is handed over can be attached, or written to."""
    key, value = ctypes.c_uint32(0), ctypes.create_string_buffer(1 << 16)
    for probe, params in LOADS:
        answer, fds = it.ask(op="load", probe=probe, params=params)
        for name, fd in zip(answer["maps"], fds, strict=True):
            if os.readlink(f"/proc/self/fd/{fd}") != "anon_inode:bpf-map":
                return f"{name} of {probe} is no map"
            update = struct.pack("=2I3Q", fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
            for what, command, attr in (
                ("attached", 28, struct.pack("=4I48x", fd, 0, bpf_syscall.ATTACH_UPROBE_MULTI, 0)),
                ("attached", 17, struct.pack("=QII", 0, fd, 0)),
                *([] if name in CONTROL_PAGES else [("written", 2, update)]),
            ):
                with suppress(OSError):
                    bpf_syscall._bpf(command, attr)
                    return f"{name} of {probe} is {what}"
            if name not in CONTROL_PAGES + RING_BUFFERS:
                with suppress(OSError):
                    mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE)
                    return f"{name} of {probe} can be written to"
        packets.close_all(fds)
    return ""


def words_of_control_pages(it: Compromised) -> str:
    """Control pages full of extremes: programs must neither stop nor read elsewhere."""
    chance = random.Random(7)
    for probe, params in LOADS:
        answer, fds = it.ask(op="load", probe=probe, params=params)
        for name, fd in zip(answer["maps"], fds, strict=True):
            if name not in CONTROL_PAGES:
                continue
            memory = mmap.mmap(fd, 4096, mmap.MAP_SHARED)
            for _ in range(200):
                words = [chance.choice((0, 1, 2**31, 2**63, 2**64 - 1)) for _ in range(64)]
                memory[:512] = struct.pack("=64Q", *words)
                memory[:8] = struct.pack("=Q", 1)
                os.getppid()
        packets.close_all(fds)
    return it.alive()


def messages(it: Compromised) -> str:
    """No JSON, no message, too deep, too large, several at once, and parts of one."""
    for raw in (b"", b"+", b"x", b"[]", b"[" * 100_000,
                b'{"a":' * 30_000, b"9" * 5000, b"\xff" * 99,
                b'{"id":9999}', b'{"op":"load","id":9999,"probe":["a"]}', b" " * 200_000,
                b'{"op":"load","id":9999,"probe":"latency","params":{"targets":5}}',
                b'{"op":"load","id":9999,"probe":"latency","params":{"targets":'
                + b"[" * 985 + b"]" * 985 + b"}}"):  # fmt: skip
        it.write(raw + b"\n")
    it.write(b"\n" * 500 + b" " * 1_000_000 + b'\n{"id":9998,')
    it.write(b'"op":"runs"}\n{"id":9997,"op":"runs"}\n')
    failed = it.alive()
    # It does not wait for the rest of this, when we are gone.
    it.write(b'{"id":9996,')
    return failed


def descriptors_whose_close_blocks(it: Compromised) -> str:
    """Files that nobody can close soon, in the hands of the broker: as its last holder it waits."""
    for data in (packets.PART, b'{"id":1,"op":"runs"}', b'{"id":1,"op":"help","name":"page"}'):
        with suppress(BrokenPipeError):
            with lingering() as sock:
                socket.send_fds(it.link.answers, [data], [sock.fileno()])
            return "it takes descriptors"
    return it.alive()


@contextmanager
def lingering() -> Iterator[socket.socket]:
    """A socket whose last close waits an hour for a peer that reads nothing.

    Our own copy is gone at the end, if somebody else has one.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sock.send(bytes(1 << 16))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 3600))
    try:
        yield sock
    except BrokenPipeError:
        # Nobody has taken it: it is not to linger here.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 0, 0))
        sock.close()
        peer.close()
        raise
    sock.close()
    PEERS.append(peer)


PEERS: list[socket.socket] = []
"""Kept open for as long as the attack lasts."""


def answers_that_are_not_read(it: Compromised) -> str:
    """More answers than the broker may keep, so that it waits for us, or grows."""
    for number in range(100_000):
        try:
            it.write(b'{"id":%d,"op":"runs"}\n' % number)
        except BrokenPipeError:
            return ""
    return "it keeps all answers"


def arguments_although_hidden(it: Compromised) -> str:
    """Arguments of programs, from a broker that was started with --no-args."""
    for params in ({"args": True}, {"args": True, "failed": False}, {}, {"args": 1}):
        answer, fds = it.ask(op="load", probe="execs", params=params)
        if not answer["ok"]:
            continue
        probe = ExecProbe()
        probe.adopt(Loaded.of(convert(answer, Answer), fds))
        pid = os.posix_spawn("/bin/true", ["true", ARGUMENT], {})
        os.waitpid(pid, 0)
        events: list[object] = []
        end = time.monotonic() + 20
        while not any(getattr(event, "pid", 0) == pid for event in events):
            events += probe.read(time.monotonic()).events
            if time.monotonic() > end:
                return "no events at all"
        if ARGUMENT in str(events):
            return str(events)
        probe.release()
        it.ask(op="runs")
    return it.alive()


def kernel_memory(it: Compromised) -> str:
    """Maps that we hold when their probes are long detached."""
    held: list[int] = []
    taken, refused = 0, ""
    for _ in range(100):
        answer, fds = it.ask(op="load", probe="syscalls", params={"latency": True})
        held += fds
        if not answer["ok"]:
            refused = answer["why"]
            break
        taken += sum(int(bpf_syscall.fdinfo(fd)["memlock"]) for fd in fds)
        it.link.send({"id": 0, "op": "detach", "unit": answer["unit"]})
    if not refused or taken > MOST_MEMORY:
        return f"{taken >> 20} MiB are taken"
    if "MiB of the kernel's memory" not in refused:
        return f"refused: {refused}"
    packets.close_all(held)
    return eventually_alive(it)


def eventually_alive(it: Compromised) -> str:
    """As `alive`, once the kernel has freed what was let go."""
    end = time.monotonic() + 20
    while said := it.alive():
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    return said


def thousands_of_targets(it: Compromised) -> str:
    """More targets than any loader can take in one message."""
    it.load(*[f"uprobe:/nowhere{n}:f" for n in range(3500)])
    it.load(*["runq"] * 7000)
    it.load("x" * 100_000)
    return it.alive()


def hostile_elf_files(it: Compromised) -> str:
    """Symbols without an end, a bomb of debug data, and pseudo files."""
    folder = it.prey.hostile
    many: list[Row] = [(f"f{n}", FUNC, GLOBAL, n % 60, 1) for n in range(60_000)]
    endless = ElfFile(symtab=many).build().replace(b"\0f", b"ff")
    (folder / "endless").write_bytes(endless)
    bomb = lzma.compress(bytes(700 << 20), preset=1)
    (folder / "bomb").write_bytes(
        ElfFile(dynsym=[("f", FUNC, GLOBAL, 0, 8)], debugdata=bomb).build()
    )
    for path in (folder / "endless", folder / "bomb"):
        path.chmod(0o755)
        it.load(f"uprobe:{path}:g", f"uprobe:{path}:g*")
        it.ask(op="search", query=f"uprobe:{path}:g")
    bad = [
        f"uprobe:{path}:f"
        for path in ("/proc/self/mem", "/dev/zero", "/proc/kcore", "/", "/dev/tty")
    ]
    answer = it.load("runq", *bad)
    if [one["spec"] for one in answer["facts"]["targets"]] != ["runq"]:
        return f"a bad target cost others: {answer}"
    return it.alive()


def kernel_addresses(it: Compromised) -> str:
    """Fields of tracepoints that tell where the kernel is, as a value and as a key of a pair."""
    fields = ("kmem:kmalloc@call_site", "kmem:kmalloc@ptr", "skb:kfree_skb@location",
              "timer:hrtimer_start@function", "workqueue:workqueue_execute_start@work",
              "vmalloc:alloc_vmap_area@addr", "vmalloc:purge_vmap_area_lazy@end")  # fmt: skip
    targets = [f"tracepoint:{field}" for field in fields]
    targets += [f"tracepoint:{field.partition('@')[0]},tracepoint:{field}" for field in fields]
    answer = it.load("runq", *targets)
    found = [one["spec"] for one in answer["facts"]["targets"]]
    return "" if found == ["runq"] else f"attached to {found}: {answer}"


def values_of_call_sites(it: Compromised) -> str:
    """Whether values of the half of addresses that is the kernel's are measured."""
    params = {"targets": ["tracepoint:kmem:kmalloc@call_site"]}
    answer, fds = it.ask(op="load", probe="latency", params=params)
    maps = dict(zip(answer["maps"], fds, strict=True))
    number = answer["facts"]["PT_SLICES"] * answer["facts"]["PT_HISTS"]
    size = -(-number * HISTOGRAM // mmap.PAGESIZE) * mmap.PAGESIZE
    values = others = 0
    with (
        mmap.mmap(maps["control"], mmap.PAGESIZE) as control,
        mmap.mmap(maps["hists"], size, mmap.MAP_SHARED, mmap.PROT_READ) as hists,
    ):
        control[0:8] = struct.pack("=Q", 1)
        last = time.monotonic() + 60
        while not values + others and time.monotonic() < last:
            packets.close_all(os.pipe())
            rows = [struct.unpack_from("=3Q", hists, HISTOGRAM * n) for n in range(number)]
            values, others = sum(row[1] for row in rows), sum(row[2] for row in rows)
        control[0:8] = bytes(8)
    packets.close_all(fds)
    it.link.send({"id": 0, "op": "detach", "unit": answer["unit"]})
    return "values" if values else "nothing of calls" if others else "no calls"


def costly_wildcards(it: Compromised) -> str:
    """A pattern of many stars against long names must not cost other targets anything."""
    path = it.prey.hostile / "long"
    rows: list[Row] = [("a" * 4000 + str(n), FUNC, GLOBAL, n, 1) for n in range(60)]
    path.write_bytes(ElfFile(symtab=rows).build())
    stars = "*a" * 30 + "*b"
    answer = it.load(
        "runq", f"uprobe:{path}:{stars}", f"func:{stars}", f"usdt:{path}:n@str({' ' * 9000}"
    )
    found = [one["spec"] for one in answer["facts"]["targets"]] if answer["ok"] else []
    return it.alive() if found == ["runq"] else f"others were lost: {answer}"


def counters_that_are_none(it: Compromised) -> str:
    """A note names data of the program as its reference counter, which the kernel changes."""
    path = it.prey.hostile / "counter"
    for counter in (DATA + 8, DATA + 12, DATA + 1):
        note = usdt_note("p", "n", 0, counter=counter)
        path.write_bytes(ElfFile(notes=note, counters=8).build())
        answer = it.load(f"usdt:{path}:p:n")
        if answer["ok"] and answer["facts"]["targets"]:
            return f"attached with the counter {counter:#x}"
    path.write_bytes(ElfFile(notes=usdt_note("p", "n", 0, counter=DATA), counters=8).build())
    answer = it.load(f"usdt:{path}:p:n")
    return "" if answer["facts"]["targets"] else f"a true counter is refused: {answer}"


def helpers_by_path(it: Compromised) -> str:
    """Names of helpers that are code."""
    for name in ("os:system", "probes.doctor.report:report", "../doctor", "doctor"):
        answer, _ = it.ask(op="help", name=name)
        if answer["ok"]:
            return f"{name} was run"
    return it.alive()


def the_broker_itself(it: Compromised) -> str:
    """Signals to the broker, its memory, and its descriptors."""
    for number in (signal.SIGKILL, signal.SIGSTOP):
        with suppress(PermissionError):
            os.kill(it.broker_pid, number)
            return f"{number.name} was delivered"
    for name in ("mem", "environ", "maps"):
        with suppress(OSError):
            Path(f"/proc/{it.broker_pid}/{name}").read_bytes()
            return f"its {name} can be read"
    with suppress(OSError):
        os.listdir(f"/proc/{it.broker_pid}/fd")
        return "its descriptors are listed"
    return it.alive()


ATTACKS = [
    Attack(work.__name__.replace("_", " "), work)
    for work in (
        inside_an_instruction,
        static_probe_without_its_nop,
        a_link_that_turns,
        what_is_private,
        a_pid_that_is_a_path,
        descriptors,
        words_of_control_pages,
        messages,
        thousands_of_targets,
        hostile_elf_files,
        kernel_addresses,
        costly_wildcards,
        counters_that_are_none,
        helpers_by_path,
        descriptors_whose_close_blocks,
        answers_that_are_not_read,
        arguments_although_hidden,
        kernel_memory,
        the_broker_itself,
    )
]
