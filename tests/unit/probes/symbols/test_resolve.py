# SPDX-License-Identifier: Apache-2.0
"""What a made-up kernel lets one trace, and the sentences about what it does not."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from probes.bpf.btf_functions import btf_functions, describes
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.symbols.kernel_functions import Kernel, KernelFunction, Mechanism, Where, syscall_number
from probes.symbols.tracepoints import (
    Field,
    key_fields,
    parse_format,
    tracepoint_format,
    tracepoints,
)

SYSCALL = {"x86_64": "__x64_sys_", "arm64": "__arm64_sys_"}.get(kernel.arch() or "", "sys_")
KALLSYMS = f"""\
0000000000000010 T vfs_read
0000000000000000 T __pfx_vfs_read
0000000000000020 T vfs_write
0000000000000030 t inner.isra.0
0000000000000040 t inner.isra.0.cold
0000000000000050 t gone.cold
0000000000000060 t twice
0000000000000070 t twice
0000000000000080 T irq_enter
0000000000000090 T hidden
00000000000000a0 D jiffies
00000000000000b0 T {SYSCALL}read
00000000000000c0 t ext4_sync\t[ext4]
00000000000000d0 t bpf_prog_1\t[bpf]
00000000000000e0 t ftrace_trampoline\t[__builtin__ftrace]
00000000000000f0 W weak_one
"""
FORMAT = """\
name: block_rq_issue
ID: 2104
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;

	field:dev_t dev;	offset:8;	size:4;	signed:0;
	field:sector_t sector;	offset:16;	size:8;	signed:0;
	field:int error;	offset:24;	size:4;	signed:1;
	field:char rwbs[10];	offset:34;	size:10;	signed:0;
	field:__data_loc char[] cmd;	offset:60;	size:4;	signed:0;

print fmt: "%d %llu (%s)", REC->dev, (unsigned long long)REC->sector, __get_str(cmd)
"""


def btf(functions: list[str], base: bytes = b"", others: int = 1) -> bytes:
    """BTF data with some types of another kind (an integer, a struct) before the functions."""
    first = struct.unpack_from("<I", base, 20)[0] if base else 0
    strings = b"" if base else b"\0"
    types = b""
    for _ in range(others):
        types += struct.pack("<4I", 0, 1 << 24, 4, 32)
        types += struct.pack("<6I", 0, 4 << 24 | 1, 4, 0, 1, 0)
    for name in functions:
        types += struct.pack("<3I", first + len(strings), 12 << 24 | 1, 1)
        strings += name.encode() + b"\0"
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + (
        types + strings
    )


@pytest.fixture
def where(tmp_path: Path) -> Where:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    (tmp_path / "btf").mkdir()
    base = btf(["vfs_read", "vfs_write", "irq_enter", "hidden", "all_inlined", "vfs_read"])
    (tmp_path / "btf" / "vmlinux").write_bytes(base)
    (tmp_path / "btf" / "ext4").write_bytes(b"")
    tracefs = tmp_path / "tracing"
    (tracefs / "events/block/block_rq_issue").mkdir(parents=True)
    (tracefs / "events/block/block_rq_issue/format").write_text(FORMAT)
    (tracefs / "available_events").write_text(
        "block:block_rq_issue\nblock:block_rq_complete\nirq:irq_entry\nftrace:function\n"
    )
    patchable = ["vfs_read", "vfs_write", "inner.isra.0", "irq_enter", "ext4_sync [ext4]"]
    (tracefs / "available_filter_functions").write_text("\n".join(patchable) + "\n")
    (tmp_path / "debug" / "kprobes").mkdir(parents=True)
    (tmp_path / "debug" / "kprobes" / "blacklist").write_text(
        "0x0000000000000080-0x0000000000000090\tirq_enter\n"
    )
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "modules.symbols").write_text("alias symbol:nf_hook nf_tables\n")
    return Where(
        tmp_path / "kallsyms",
        tmp_path / "btf",
        tracefs,
        tmp_path / "debug",
        tmp_path / "modules",
    )


def refused(where: Where, name: str, mechanism: Mechanism | None = None) -> ProbeError:
    with pytest.raises(ProbeError) as caught:
        Kernel(where).function(name, mechanism)
    return caught.value


def test_what_may_be_attached(where: Where) -> None:
    known = Kernel(where)
    assert known.function("vfs_read") == KernelFunction("vfs_read", "", True, True, False)
    found = known.function("inner.isra.0")
    assert (found.fentry, found.kprobe) == (False, True)
    assert known.function("irq_enter", "fentry").blacklisted
    assert known.function("irq_enter", "fentry").fentry
    assert known.btf_ids["vfs_read"] == 3
    assert known.function("ext4_sync").module == "ext4"


SENTENCES: list[tuple[str, Mechanism | None, str, str]] = [
    ("vfs_raed", None, "this kernel has no function 'vfs_raed'", "did you mean vfs_read"),
    ("zzzzzz", None, "this kernel has no function 'zzzzzz'", "it may be inlined"),
    ("read", None, "this kernel has no function 'read'", f"did you mean {SYSCALL}read"),
    ("sys_read", None, "this kernel has no function", f"did you mean {SYSCALL}read"),
    (
        "inner",
        None,
        "the compiler changed the arguments of 'inner', and what is left of it is inner.isra.0",
        "trace inner.isra.0",
    ),
    ("gone", None, "the compiler inlined 'gone' where it is called", "trace what calls it"),
    ("all_inlined", None, "the compiler inlined 'all_inlined'", "trace what calls it"),
    ("gone.cold", None, "the rarely run part of a function", "trace gone"),
    ("twice", None, "this kernel has 2 functions called twice", "trace what calls them"),
    ("jiffies", None, "'jiffies' is data of the kernel", "name a function"),
    ("nf_hook", None, "'nf_hook' is in the module nf_tables", "modprobe nf_tables"),
    ("hidden", None, "the kernel lets no probe into hidden (notrace)", "trace what calls it"),
    ("hidden", "fentry", "the kernel lets no probe into it (notrace)", "trace what calls it"),
    ("inner.isra.0", "fentry", "the kernel's BTF does not describe it", "kprobe:inner.isra.0"),
    ("irq_enter", "kprobe", "kprobes refuse irq_enter", "write fentry:irq_enter"),
    ("irq_enter", None, "kprobes refuse irq_enter", "trace what calls it"),
]


@pytest.mark.parametrize(
    ("name", "mechanism", "why", "fix"), SENTENCES, ids=[f"{s[0]}-{s[1]}" for s in SENTENCES]
)
def test_why_not(where: Where, name: str, mechanism: Mechanism | None, why: str, fix: str) -> None:
    error = refused(where, name, mechanism)
    assert why in error.why
    assert fix in error.fix


def test_lists_leave_out_what_cannot_be_traced(where: Where) -> None:
    known = Kernel(where)
    every = ["ext4_sync", "inner.isra.0", "vfs_read", "vfs_write"]
    assert known.traceable() == every
    assert known.traceable("kprobe") == every
    assert known.traceable("fentry") == [n for n in every if n != "inner.isra.0"]
    assert [f.name for f in known.expand("vfs_*")] == ["vfs_read", "vfs_write"]
    assert [f.name for f in known.expand("vfs_?ead")] == ["vfs_read"]
    with pytest.raises(ProbeError, match="matches 4 functions of this kernel, and 2 at once"):
        known.expand("*", limit=2)
    with pytest.raises(ProbeError, match="'x\\*' matches no function of this kernel"):
        known.expand("x*")


def test_a_kernel_that_tells_less(where: Where, tmp_path: Path) -> None:
    known = Kernel(Where(where.kallsyms, tmp_path / "none"))
    assert known.function("hidden") == KernelFunction("hidden", "", False, None, None)
    assert "weak_one" in known.traceable("kprobe")
    assert "gone.cold" not in known.traceable()
    with pytest.raises(ProbeError, match="type information"):
        known.function("vfs_read", "fentry")
    only_btf = Kernel(Where(tmp_path / "none", where.btf))
    assert only_btf.function("vfs_read").fentry
    assert "vfs_write" in only_btf.traceable()
    with pytest.raises(ProbeError, match=r"no function 'vfs_raed'.*did you mean vfs_read"):
        only_btf.function("vfs_raed")
    nothing = Kernel(Where(tmp_path / "none", tmp_path / "none"))
    with pytest.raises(ProbeError, match="tells no function names"):
        nothing.function("vfs_read")


def test_btf_of_kernel_and_module() -> None:
    base = btf(["alpha", "beta"], others=3)
    assert dict(btf_functions(base)) == {"alpha": 7, "beta": 8}
    module = btf(["gamma"], base=base)
    assert dict(btf_functions(module, base)) == {"gamma": 11}
    assert describes(base, "alpha")
    assert describes(base, "beta")
    assert not describes(base, "alph")
    assert describes(module, "gamma", base)
    assert not describes(module, "alpha", base)
    for broken in (b"", b"\0" * 40, base[:50], base[:12] + b"\xff" * 60):
        assert dict(btf_functions(broken)) == {}
        assert not describes(broken, "alpha")


def test_fields_of_a_tracepoint(where: Where) -> None:
    found = tracepoint_format(where.tracefs, "block", "block_rq_issue")
    assert found["dev"] == Field("dev", 8, 4, False, False, "dev_t")
    assert found["error"] == Field("error", 24, 4, True, False, "int")
    assert found["rwbs"].array
    assert found["cmd"] == Field("cmd", 60, 4, False, True, "__data_loc char[]")
    assert found == parse_format(FORMAT)
    keys = key_fields(where.tracefs, "block", "block_rq_issue", ["dev", "sector"])
    assert [(k.offset, k.size) for k in keys] == [(8, 4), (16, 8)]


def test_what_is_no_tracepoint_or_field(where: Where) -> None:
    tracefs = where.tracefs
    for category, name, fix in (
        ("block", "block_rq_isue", "did you mean tracepoint:block:block_rq_issue"),
        ("sched", "irq_entry", "did you mean tracepoint:irq:irq_entry"),
        ("blok", "block_rq_complet", "did you mean tracepoint:block:block_rq_complete"),
        ("zzz", "zzz", "look for it with f"),
        ("..", "..", "look for it with f"),
    ):
        with pytest.raises(ProbeError) as caught:
            tracepoint_format(tracefs, category, name)
        assert "this kernel has no tracepoint" in caught.value.why
        assert caught.value.fix.startswith(fix)
    with pytest.raises(ProbeError, match="tracefs is not mounted"):
        tracepoint_format(None, "block", "block_rq_issue")
    with pytest.raises(ProbeError, match="no field 'sectr': did you mean sector"):
        key_fields(tracefs, "block", "block_rq_issue", ["sectr"])
    with pytest.raises(ProbeError, match=r"is text, .*: it has dev, sector, error"):
        key_fields(tracefs, "block", "block_rq_issue", ["cmd"])


def test_tracepoints_are_listed_without_available_events(where: Where) -> None:
    assert where.tracefs is not None
    assert ("irq", "irq_entry") in tracepoints(where.tracefs)
    assert ("ftrace", "function") not in tracepoints(where.tracefs)
    (where.tracefs / "available_events").unlink()
    assert tracepoints(where.tracefs) == [("block", "block_rq_issue")]
    assert tracepoints(None) == []


def test_system_calls_by_name() -> None:
    assert syscall_number("read") == {"x86_64": 0, "arm64": 63}[kernel.arch() or ""]
    with pytest.raises(ProbeError, match="has no system call 'raed': did you mean syscall:read"):
        syscall_number("raed")
