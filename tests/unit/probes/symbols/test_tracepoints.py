# SPDX-License-Identifier: Apache-2.0
"""Fields of tracepoints that hold addresses are only for the person who starts the program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.host import file_access
from probes.host.file_access import Asker, for_clients, set_asker
from probes.latency import planner
from probes.symbols.target_spec import trusting
from probes.symbols.tracepoints import key_fields, parse_format, tracepoint_format, tracepoints
from probes.symbols.usdt_operands import LOW

KMALLOC = """\
name: kmalloc
ID: 658
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:unsigned long call_site;	offset:8;	size:8;	signed:0;
	field:const void * ptr;	offset:16;	size:8;	signed:0;
	field:size_t bytes_req;	offset:24;	size:8;	signed:0;
	field:unsigned long flags;	offset:32;	size:8;	signed:0;
	field:int node;	offset:40;	size:4;	signed:1;

print fmt: "call_site=%pS 100%% ptr=%p bytes_req=%zu flags=%s node=%d", (void *)REC->call_site, \
REC->ptr, REC->bytes_req, (REC->flags) ? __print_flags(REC->flags, "|", { (1UL << 3), "a,(b" }, \
{ 2, "c\\"" }) : ",", REC->node
"""
TYPES = """\
	field:initcall_t func;	offset:8;	size:8;	signed:0;
	field:fl_owner_t owner;	offset:16;	size:8;	signed:0;
	field:struct a *b;	offset:24;	size:8;	signed:0;
	field:struct a * const c;	offset:32;	size:8;	signed:0;
	field:u64 gpa;	offset:40;	size:8;	signed:0;
	field:u64 octal;	offset:48;	size:8;	signed:0;
	field:u32 narrow;	offset:56;	size:4;	signed:0;
	field:s64 key;	offset:64;	size:8;	signed:1;
	field:u64 unseen;	offset:72;	size:8;	signed:0;
	field:u64 count;	offset:80;	size:8;	signed:0;
	field:void * list[4];	offset:88;	size:32;	signed:0;

print fmt: "%-12ps %#pK %p %p %#016llx %llo %.*s%08x %lx %*llu", REC->func, REC->owner, REC->b, \
REC->c, REC->gpa, REC->octal, 8, "x", REC->narrow, REC->key, 20, REC->count
"""
CALL = """\
	field:int __syscall_nr;	offset:8;	size:4;	signed:1;
	field:unsigned int fd;	offset:16;	size:8;	signed:0;
	field:char * buf;	offset:24;	size:8;	signed:0;
	field:size_t count;	offset:32;	size:8;	signed:0;

print fmt: "fd: 0x%08lx, buf: 0x%08lx, count: 0x%08lx", ((unsigned long)(REC->fd)), \
((unsigned long)(REC->buf)), ((unsigned long)(REC->count))
"""


@pytest.fixture(autouse=True)
def policy() -> Iterator[None]:
    """Each test starts with this process's own rights."""
    yield
    set_asker(Asker())


@pytest.fixture
def tracefs(tmp_path: Path) -> Path:
    for category, name, text in (
        ("kmem", "kmalloc", KMALLOC),
        ("x", "types", TYPES),
        ("syscalls", "sys_enter_read", CALL),
    ):
        folder = tmp_path / "events" / category / name
        folder.mkdir(parents=True)
        (folder / "format").write_text("format:\n" + text)
    (tmp_path / "available_events").write_text("kmem:kmalloc\n")
    return tmp_path


def addresses(text: str, category: str = "x") -> set[str]:
    return {name for name, field in parse_format("\n" + text, category).items() if field.address}


def test_what_is_an_address() -> None:
    assert addresses(KMALLOC) == {"call_site", "ptr"}
    assert addresses(TYPES) == {"func", "owner", "b", "c", "gpa", "octal", "unseen"}
    # The program's own numbers are shown in hexadecimal; a pointer stays one.
    assert addresses(CALL, "syscalls") == {"buf"}
    assert addresses(CALL) == {"fd", "buf", "count"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("REC->node\n", "REC->node, 1\n"),
        lambda text: text.replace('print fmt: "', "print fmt: "),
        lambda text: text.replace("print fmt:", "prints:"),
        lambda text: text.replace("%zu", "zu"),
        lambda text: text.replace(", REC->node", ""),
    ],
)
def test_a_text_that_is_not_understood_vouches_for_nothing(spoil: object) -> None:
    assert callable(spoil)
    assert addresses(spoil(KMALLOC)) == {"call_site", "ptr", "bytes_req", "flags"}


def test_decimal_numbers_that_are_addresses() -> None:
    """As in vmalloc:alloc_vmap_area and in compaction:*, whose texts say %lu."""
    names = ("fault_addr", "va_start", "skbaddr", "ip")
    fields = "".join(
        f"\tfield:unsigned long {name};\toffset:{8 * at};\tsize:8;\tsigned:0;\n"
        for at, name in enumerate(names, 1)
    )
    shown = ", ".join(f"REC->{name}" for name in names)
    text = f'{fields}\nprint fmt: "%lu %lu %lu %lu", {shown}\n'
    assert addresses(text) == {"fault_addr", "skbaddr", "ip"}
    assert addresses(text, "vmalloc") == {"fault_addr", "va_start", "skbaddr", "ip"}
    assert addresses(text, "syscalls") == set()


def test_what_may_be_an_address_all_the_same_is_left_out(
    tracefs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whoever may not know addresses, the program drops values in the kernel's half."""
    monkeypatch.setattr(kernel, "tracefs", lambda: tracefs)
    for asker, size_is_low in ((for_clients(), LOW), (Asker(), 0)):
        set_asker(asker)
        for target, low in (
            ("tracepoint:kmem:kmalloc@bytes_req", size_is_low),
            ("tracepoint:kmem:kmalloc@node", 0),
            ("tracepoint:syscalls:sys_enter_read@count", 0),
        ):
            (attach,) = planner.wish(target, 0).attach
            assert attach.patch[planner.HOW_A] & LOW == low


@pytest.mark.parametrize("field", ["call_site", "ptr"])
def test_addresses_are_not_for_clients(tracefs: Path, field: str) -> None:
    set_asker(for_clients())
    for value in (True, False):
        with pytest.raises(ProbeError) as caught:
            key_fields(tracefs, "kmem", "kmalloc", [field], value)
        assert str(caught.value).count("\n") == 0
        assert "it has bytes_req, flags, node" in caught.value.fix
    assert key_fields(tracefs, "kmem", "kmalloc", ["bytes_req"], True)[0].offset == 24
    assert len(key_fields(tracefs, "kmem", "kmalloc", ["bytes_req", "flags"])) == 2
    assert key_fields(tracefs, "syscalls", "sys_enter_read", ["fd"], True)


def test_targets_of_the_start_may_be_joined_by_addresses(tracefs: Path) -> None:
    target = "tracepoint:kmem:kmalloc@ptr"
    options = {"latency": {"targets": [target]}}
    set_asker(trusting(for_clients(), options))
    with file_access.target(target, 5.0):
        assert key_fields(tracefs, "kmem", "kmalloc", ["ptr", "call_site"])
        assert key_fields(tracefs, "kmem", "kmalloc", ["call_site"], True)
        # A pointer is no size, whoever asks.
        with pytest.raises(ProbeError, match="ptr of kmem:kmalloc is a pointer, which has no size"):
            key_fields(tracefs, "kmem", "kmalloc", ["ptr"], True)
    with file_access.target(target + "x", 5.0), pytest.raises(ProbeError, match="an address of"):
        key_fields(tracefs, "kmem", "kmalloc", ["ptr"])


def test_a_plan_refuses_them(tracefs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "tracefs", lambda: tracefs)
    set_asker(for_clients())
    for target in (
        "tracepoint:kmem:kmalloc@call_site",
        "tracepoint:kmem:kmalloc,tracepoint:kmem:kmalloc@bytes_req,ptr",
    ):
        with pytest.raises(ProbeError, match="may hold an address of the kernel"):
            planner.wish(target, 0)
    assert planner.wish("tracepoint:kmem:kmalloc@bytes_req", 0).attach
    set_asker(Asker())
    with pytest.raises(ProbeError, match="is a pointer"):
        planner.wish("tracepoint:kmem:kmalloc@ptr", 0)


@pytest.mark.skipif(kernel.tracefs() is None, reason="this machine shows no tracepoints")
def test_the_texts_of_this_kernel_are_understood() -> None:
    found = kernel.tracefs()
    assert found is not None
    for category, name in tracepoints(found):
        fields = tracepoint_format(found, category, name)
        for field in fields.values():
            if "*" in field.type and not field.array:
                assert field.address
        text = (found / "events" / category / name / "format").read_text()
        if "common_pid" in text and category != "syscalls":
            assert not (fields["common_pid"].address)
    fields = tracepoint_format(found, "sched", "sched_stat_runtime")
    assert not fields["runtime"].address
    fields = tracepoint_format(found, "kmem", "kmalloc")
    assert fields["call_site"].address
    assert not fields["bytes_req"].address
