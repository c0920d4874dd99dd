# SPDX-License-Identifier: Apache-2.0
"""The grammar of targets: what each form means, and what a user reads when it is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from probes.core.errors import ProbeError
from probes.symbols.target_spec import KINDS, PRESETS, RETURNS, Spec, parse

GOOD: list[tuple[str, str, dict[str, Any]]] = [
    ("k:vfs_read", "kprobe:vfs_read", {"kind": "kprobe", "symbol": "vfs_read"}),
    ("kprobe:a.isra.0", "kprobe:a.isra.0", {"kind": "kprobe", "symbol": "a.isra.0"}),
    ("kprobe:vfs_*", "kprobe:vfs_*", {"kind": "kprobe", "symbol": "vfs_*", "wildcard": True}),
    ("kfunc:vfs_read", "fentry:vfs_read", {"kind": "fentry", "symbol": "vfs_read"}),
    (" f:x? ", "fentry:x?", {"kind": "fentry", "symbol": "x?", "wildcard": True}),
    ("func:vfs_read", "func:vfs_read", {"kind": "func", "symbol": "vfs_read"}),
    (
        "u:libc:malloc",
        "uprobe:libc:malloc",
        {"kind": "uprobe", "path": "libc", "symbol": "malloc"},
    ),
    (
        "uprobe:/a:b/c,d:f+16",
        "uprobe:/a:b/c,d:f+0x10",
        {"kind": "uprobe", "path": "/a:b/c,d", "symbol": "f", "offset": 16},
    ),
    ("u:x:f+010", "uprobe:x:f+0xa", {"kind": "uprobe", "path": "x", "symbol": "f", "offset": 10}),
    ("u:bash:0X1C20", "uprobe:bash:0x1c20", {"kind": "uprobe", "path": "bash", "offset": 0x1C20}),
    (
        "u:app:main.(*T).Run",
        "uprobe:app:main.(*T).Run",
        {"kind": "uprobe", "path": "app", "symbol": "main.(*T).Run", "wildcard": True},
    ),
    (
        "U:/usr/bin/python3:python:gc__start",
        "usdt:/usr/bin/python3:python:gc__start",
        {
            "kind": "usdt",
            "path": "/usr/bin/python3",
            "provider": "python",
            "name": "gc__start",
        },
    ),
    (
        "usdt:libc:setjmp",
        "usdt:libc:setjmp",
        {"kind": "usdt", "path": "libc", "name": "setjmp"},
    ),
    (
        "t:sched:sched_switch",
        "tracepoint:sched:sched_switch",
        {"kind": "tracepoint", "provider": "sched", "name": "sched_switch"},
    ),
    (
        "t:block:block_rq_issue@bytes",
        "tracepoint:block:block_rq_issue@bytes",
        {
            "kind": "tracepoint",
            "provider": "block",
            "name": "block_rq_issue",
            "fields": ("bytes",),
        },
    ),
    (
        "U:/a@1/b:p:n@ arg0 , str( arg2 )",
        "usdt:/a@1/b:p:n@arg0,str(arg2)",
        {
            "kind": "usdt",
            "path": "/a@1/b",
            "provider": "p",
            "name": "n",
            "fields": ("arg0",),
            "text_field": "arg2",
        },
    ),
    ("syscall:read", "syscall:read", {"kind": "syscall", "name": "read"}),
    ("runq", "runq", {"kind": "preset", "name": "runq"}),
]


@pytest.mark.parametrize(("text", "normal", "fields"), GOOD, ids=lambda x: str(x)[:30])
def test_one_target(text: str, normal: str, fields: dict[str, Any]) -> None:
    assert parse(text) == Spec(normal, **fields)
    assert parse(normal) == Spec(normal, **fields)


def test_a_pair_of_static_probes() -> None:
    spec = parse("U:/a,b:p:start,usdt:/a,b:p:done")
    assert str(spec) == "usdt:/a,b:p:start,usdt:/a,b:p:done"
    assert (spec.kind, spec.path, spec.provider, spec.name) == ("usdt", "/a,b", "p", "start")
    assert spec.end == parse("usdt:/a,b:p:done")
    assert spec.fields == ()


def test_a_pair_of_tracepoints_joined_by_fields() -> None:
    spec = parse("t:block:block_rq_issue,tracepoint:block:block_rq_complete@dev, sector")
    assert (
        str(spec) == "tracepoint:block:block_rq_issue,tracepoint:block:block_rq_complete@dev,sector"
    )
    assert spec.fields == ("dev", "sector")
    assert spec.end == parse("t:block:block_rq_complete")
    assert parse("t:a:b,t:a:c").fields == ()


BAD = [
    ("", "the target is empty", "func:vfs_read"),
    ("vfs_read", "'vfs_read' names no kind and is no preset", "func:FUNCTION"),
    ("runqq", "names no kind", "did you mean runq"),
    ("kprob:vfs_read", "'kprob' is no kind", "did you mean kprobe"),
    ("profile:hz:99", "'profile' is no kind", "kinds are kprobe, fentry, func, uprobe"),
    ("kretprobe:vfs_read", "kretprobe is not needed", "write kprobe:vfs_read"),
    ("kprobe:", "kprobe needs the name", "kprobe:vfs_read"),
    ("kprobe:a,kprobe:b", "only static probes and tracepoints make pairs", "its own -f"),
    ("fentry:ext4:ext4_sync", "named without its module", "fentry:FUNCTION"),
    ("k:f+8", "whole calls are timed", "leave out"),
    ("k:a b", "cannot be the name of a kernel function", "kprobe:FUNCTION"),
    ("uprobe:malloc", "is no file and function", "uprobe:libc:malloc"),
    ("uprobe:/bin/x:", "is no file and function", "uprobe:PATH:FUNCTION"),
    ("syscall:open@str(arg0)", "are read at static probes and tracepoints only", "leave out"),
    ("uprobe:libc:open@str(arg0)", "are read at static probes and tracepoints only", "leave out"),
    ("func:vfs_read@arg2", "are read at static probes and tracepoints only", "leave out"),
    ("uprobe:/bin/x:12", "neither a function nor an address", "0x1c20"),
    ("uprobe:/bin/x:a*+4", "is no single place", "whole name"),
    ("usdt:libc", "is no file, provider and static probe", "usdt:PATH:PROVIDER:NAME"),
    ("usdt:/x:p:a,p:b", "pair when the second has its usdt: too", "usdt:PATH:PROVIDER:NAME"),
    ("usdt:/x:p:a,t:b:c", "of one kind", "two of usdt"),
    ("usdt:x:p:a,usdt:x:p:b,usdt:x:p:c", "has 3 probes", "its own -f"),
    ("t:sched", "is no category and tracepoint", "tracepoint:CATEGORY:NAME"),
    ("t:sched:*", "wildcards are for functions", "tracepoint:CATEGORY:NAME"),
    ("t:a:b,a:c", "pair when the second has its tracepoint: too", "tracepoint:CATEGORY:NAME"),
    ("t:a:b@dev,sector", "one event has one value to measure", "the second event of a pair"),
    ("t:a:b,t:a:c@", "'' is no name of a field", "@dev,sector"),
    ("t:a:b,t:a:c@x,y,z", "'x,y,z' names too much", "two fields and one text"),
    ("t:a:b@str(comm)", "texts of tracepoints cannot be read", "a number"),
    ("t:a:b@x,t:a:c", "'t:a:b@x' has an @", "START,END@FIELD"),
    ("U:x:p:n@dev", "'dev' is no argument", "arg0, arg1"),
    ("U:x:p:n@str()", "'str()' is no argument", "str(arg0)"),
    ("U:x:p:n@str(arg1),str(arg2)", "names too much", "one text"),
    ("syscall:", "needs one system call's name", "syscall:read"),
    ("syscall:re*", "needs one system call's name", "syscall:read"),
    ("syscall:a b", "'a b' is no system call", "syscall:read"),
    ("k:\x1b[31m", "cannot be shown", "plain name"),
]


@pytest.mark.parametrize(("text", "why", "fix"), BAD, ids=[bad[0][:24] for bad in BAD])
def test_what_is_wrong_is_said(text: str, why: str, fix: str) -> None:
    with pytest.raises(ProbeError) as caught:
        parse(text)
    assert why in caught.value.why
    assert fix in caught.value.fix
    assert str(caught.value).isprintable()


pieces = st.sampled_from(
    [f"{kind}:" for kind in (*KINDS, *RETURNS)]
    + [*PRESETS, *":,@+*? /é", "0x1F", "12", "name", "libc", "/bin/x"]
)
texts = st.lists(pieces, max_size=9).map("".join) | st.text(max_size=30)


@given(texts)
@example("usdt:::a:b")
@example("u:x: +1")
def test_whatever_is_typed_parses_again_or_is_refused(text: str) -> None:
    refused = ""
    try:
        spec = parse(text)
    except ProbeError as error:
        refused = error.why
        shown = str(error)
    if refused:
        assert shown.isprintable()
    else:
        assert str(spec).isprintable()
        assert parse(str(spec)) == spec
