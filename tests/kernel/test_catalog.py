# SPDX-License-Identifier: Apache-2.0
"""Targets of the running kernel and of this machine's files, against what else lists them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from probes.bpf import bpf_syscall
from probes.bpf.btf import KernelBTF
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.symbols.binaries import find_binary, places
from probes.symbols.functions import functions
from probes.symbols.kernel_functions import Kernel
from probes.symbols.search import Catalog
from probes.symbols.target_spec import parse
from probes.symbols.tracepoints import tracepoint_format, tracepoints
from probes.uprobes.kernel_trials import file_offset

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def here() -> Kernel:
    return Kernel()


def test_btf_numbers_are_libbpfs(here: Kernel) -> None:
    types = KernelBTF()
    names = sorted(here.btf_ids)
    assert len(names) > 10_000
    for name in [*names[::500], "vfs_read", "schedule"]:
        number = types._lib.btf__find_by_name_kind(types._btf, name.encode(), 12)
        assert here.btf_ids[name] == number


def test_functions_that_every_kernel_has(here: Kernel) -> None:
    for name in ("vfs_read", "vfs_write", "kmem_cache_free"):
        found = here.function(name)
        assert found.btf
        assert found.fentry
        assert found.module == ""
    with pytest.raises(ProbeError, match=r"did you mean .*vfs_read\b"):
        here.function("vfs_raed")
    with pytest.raises(ProbeError, match="the most: make the pattern longer"):
        here.expand("*")
    assert "vfs_read" in [function.name for function in here.expand("vfs_rea*")]


def test_every_listed_function_is_in_kallsyms(here: Kernel) -> None:
    lines = Path("/proc/kallsyms").read_text().splitlines()
    known = {line.split()[2] for line in lines if line.split()[1] in "tTwW"}
    listed = here.traceable()
    assert len(listed) > 5_000
    assert known.issuperset(listed)


def test_tracepoints_have_a_format_with_their_number(here: Kernel) -> None:
    tracefs = here.where.tracefs
    assert tracefs is not None
    known = tracepoints(tracefs)
    assert ("sched", "sched_switch") in known
    for category, name in known[::100]:
        fields = tracepoint_format(tracefs, category, name)
        assert fields["common_pid"].offset == 4
        assert fields["common_pid"].signed
    # The kernel's own accounts of a record: no field goes over its beginning.
    switch = tracepoint_format(tracefs, "sched", "sched_switch")
    assert switch["prev_pid"].size == switch["next_pid"].size == 4
    assert switch["next_pid"].offset > switch["prev_pid"].offset
    assert switch["prev_comm"].array


def test_a_library_function_is_where_the_linker_put_it() -> None:
    # By its own handle, for a program may have an entry of that name, which jumps there.
    libc = ctypes.CDLL("libc.so.6")
    for name in ("malloc", "pthread_cond_wait", "getppid"):
        address = ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0
        path, offset = file_offset(address)
        for spec, pid in ((f"u:libc:{name}", None), (f"u:libc:{name}", os.getpid())):
            (place,) = places(parse(spec), pid)
            assert (os.path.realpath(place.path), place.offset) == (os.path.realpath(path), offset)


def test_symbols_are_those_that_nm_lists() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm is missing: install the package binutils")
    path = find_binary("libm.so.6")
    done = subprocess.run(
        [nm, "-D", "--defined-only", path], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    defined = {
        name.partition("@")[0]: kind for _, kind, name in rows if "@@" in name or "@" not in name
    }
    ours = functions(path)
    for name, kind in defined.items():
        if kind in "TWi":
            assert name in ours
            assert ours[name].ifunc == (kind == "i")
    assert sum(kind in "TWi" for kind in defined.values()) > 100


def test_a_found_function_can_be_probed() -> None:
    """Opens a uprobe event at the offset, which the kernel refuses off an instruction's start."""
    (place,) = places(parse("u:libc:getppid"))
    kind = int(Path("/sys/bus/event_source/devices/uprobe/type").read_text())
    path = ctypes.create_string_buffer(os.fsencode(place.path))
    event = bpf_syscall.perf_event_open(
        kind, 0, pid=os.getpid(), cpu=-1, config1=ctypes.addressof(path), config2=place.offset
    )
    try:
        ctypes.CDLL(None).getppid()
        ctypes.CDLL(None).getppid()
        assert int.from_bytes(os.read(event, 8), "little") == 2
    finally:
        os.close(event)


def test_the_finder_offers_what_this_machine_has(here: Kernel) -> None:
    catalog = Catalog(here)
    assert catalog.search("vfs_read", kinds=["func"])[0].spec == "func:vfs_read"
    assert catalog.search("t:sched_switch")[0].spec == "tracepoint:sched:sched_switch"
    assert catalog.search("libc:malloc")[0].spec == "uprobe:libc:malloc"
    assert catalog.search(f"pid:{os.getpid()}:malloc")[0].mechanism == "uprobe"
    machine = kernel.machine()
    calls = {entry.spec for entry in catalog.search("", 1000, ["syscall"])}
    assert "syscall:read" in calls, machine
    for entry in [*catalog.search("a", 300), *catalog.search("libc:a", 300)]:
        if entry.mechanism not in ("file", "directory"):
            assert str(parse(entry.spec)) == entry.spec
