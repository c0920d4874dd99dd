# SPDX-License-Identifier: Apache-2.0
"""The finder: what it offers for a few letters, in which order, and from which files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.symbols.fuzzy import Index
from probes.symbols.kernel_functions import Kernel, Where
from probes.symbols.search import Candidate, Catalog
from probes.symbols.target_spec import PRESETS, parse
from tests.unit.elf_file import FUNC, GLOBAL, IFUNC, ElfFile, usdt_note
from tests.unit.probes.symbols.test_resolve import btf

NAMES = ["vfs_read", "vfs_readv", "ksys_read", "do_vfs_read_all", "tcp_sendmsg", "readable", "read"]


def found(query: str, limit: int = 10) -> list[str]:
    return [NAMES[number] for _, number in Index(NAMES).search(query, limit)]


def test_better_matches_come_first() -> None:
    assert found("read") == [
        "read",
        "readable",
        "vfs_read",
        "ksys_read",
        "vfs_readv",
        "do_vfs_read_all",
    ]
    assert found("READ", 2) == ["read", "readable"]
    assert found("vfs_r")[:2] == ["vfs_read", "vfs_readv"]
    assert found("tcpsnd") == ["tcp_sendmsg"]
    assert found("all vfs") == ["do_vfs_read_all"]
    assert found("xyz") == []
    assert found("", 2) == ["read", "readable"]
    assert found("r.ad") == []


def test_of_very_many_matches_the_best_are_kept() -> None:
    names = [f"vfs_{i}" for i in range(3000)] + [f"x_vfs_{i}" for i in range(3000)] + ["vfs"]
    index = Index(names)
    assert [names[n] for _, n in index.search("vfs", 3)] == ["vfs", "vfs_0", "vfs_1"]
    assert [names[n] for _, n in index.search("x_vfs_299", 2)] == ["x_vfs_299", "x_vfs_2990"]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    (tmp_path / "kallsyms").write_text(
        "10 T vfs_read\n20 T vfs_write\n30 t asm_only\n40 t ext4_sync\t[ext4]\n"
    )
    (tmp_path / "btf").mkdir()
    (tmp_path / "btf" / "vmlinux").write_bytes(btf(["vfs_read", "vfs_write"]))
    (tmp_path / "tracing").mkdir()
    (tmp_path / "tracing" / "available_events").write_text(
        "irq:irq_handler_entry\nirq:irq_handler_exit\nsched:sched_switch\n"
    )
    return Catalog(Kernel(Where(tmp_path / "kallsyms", tmp_path / "btf", tmp_path / "tracing")))


def specs(entries: list[Candidate]) -> list[str]:
    return [entry.spec for entry in entries]


def test_kernel_functions_name_the_mechanism_that_they_take(catalog: Catalog) -> None:
    assert catalog.search("vfs_re")[0] == Candidate("func:vfs_read", "fentry", "a kernel function")
    assert catalog.search("asm_only")[0][:2] == ("func:asm_only", "kprobe")
    assert catalog.search("ext4_sync")[0].note == "a function of the module ext4"
    assert specs(catalog.search("k:vfs_")) == ["kprobe:vfs_read", "kprobe:vfs_write"]
    assert specs(catalog.search("f:", kinds=["fentry"])) == [
        "fentry:vfs_read",
        "fentry:ext4_sync",
        "fentry:vfs_write",
    ]
    assert catalog.search("k:vfs", kinds=["func"]) == []


def test_what_the_kernel_refuses_is_not_offered(catalog: Catalog) -> None:
    neither = Catalog(catalog.kernel, fentry=False, kprobes=False)
    assert not [s for s in specs(neither.search("vfs_read")) if s.startswith("func:")]
    assert neither.search("k:vfs_read") == []
    kprobes = Catalog(catalog.kernel, fentry=False)
    assert kprobes.search("vfs_read")[0][:2] == ("func:vfs_read", "kprobe")
    assert kprobes.search("f:vfs_read") == []
    fentry = Catalog(catalog.kernel, kprobes=False)
    assert "func:asm_only" not in specs(fentry.search("asm_only"))


def test_presets_system_calls_and_tracepoints(catalog: Catalog) -> None:
    assert catalog.search("runq")[0] == Candidate("runq", "tracepoint", PRESETS["runq"])
    assert catalog.search("read")[0][:2] == ("syscall:read", "syscall")
    assert catalog.search("sched:sw")[0].spec == "tracepoint:sched:sched_switch"
    pair = "tracepoint:irq:irq_handler_entry,tracepoint:irq:irq_handler_exit"
    assert set(specs(catalog.search("t:handler"))) == {
        "tracepoint:irq:irq_handler_entry",
        "tracepoint:irq:irq_handler_exit",
        pair,
    }
    assert set(specs(catalog.search("", kinds=["preset"]))) == set(PRESETS)
    assert len(catalog.search("", limit=3)) == 3


@pytest.fixture
def app(tmp_path: Path) -> str:
    symbols = [
        ("run", FUNC, GLOBAL, 1, 1),
        ("_ZN3app4stopEv", FUNC, GLOBAL, 2, 1),
        ("memcpy", IFUNC, GLOBAL, 3, 1),
        ("run.cold", FUNC, GLOBAL, 4, 1),
    ]
    carried = "-4@5 8@6" if kernel.arch() == "arm64" else "-4@$5 8@$6"
    notes = usdt_note("p", "gc__start", 8, carried) + usdt_note("p", "gc__done", 9)
    path = tmp_path / "app"
    path.write_bytes(
        ElfFile(symtab=list(symbols), notes=notes + usdt_note("p", "gc__done", 10)).build()
    )
    path.chmod(0o755)
    return str(path)


def test_functions_and_static_probes_of_a_file(catalog: Catalog, app: str) -> None:
    every = specs(catalog.search(app))
    assert set(every) == {
        f"uprobe:{app}:run",
        f"uprobe:{app}:app::stop",
        f"usdt:{app}:p:gc__start",
        f"usdt:{app}:p:gc__done",
        f"usdt:{app}:p:gc__start,usdt:{app}:p:gc__done",
    }
    assert all(str(parse(spec)) == spec for spec in every)
    assert catalog.search(f"{app}:app::st")[0] == Candidate(
        f"uprobe:{app}:app::stop", "uprobe", "app::stop()"
    )
    assert catalog.search(f"U:{app}:gc__done")[0].note == "a static probe in 2 places, counted"
    begun = next(e for e in catalog.search(f"U:{app}:gc__start") if "," not in e.spec)
    assert begun.note == "a static probe, counted; @arg0 i32, @arg1 u64"
    assert specs(catalog.search(f"u:{app}:")) == [
        f"uprobe:{app}:run",
        f"uprobe:{app}:app::stop",
    ]


def test_names_of_files_are_completed(
    catalog: Catalog, app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apple").mkdir()
    (tmp_path / "apricot").write_text("no program")
    (tmp_path / "ap\x1b[2J").touch(0o755)
    assert set(specs(catalog.search(f"{tmp_path}/ap"))) == {f"{app}:", f"{tmp_path}/apple/"}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert catalog.search("u:ap")[0] == Candidate("app:", "file", app)
    assert specs(catalog.search("app:ru"))[0] == "uprobe:app:run"
    assert Candidate("app:", "file", app) in catalog.search("app")


def test_a_file_that_cannot_be_read_says_why(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    with pytest.raises(ProbeError, match="is a script"):
        catalog.search(f"{tmp_path}/script:main")
    with pytest.raises(ProbeError, match="there is no process 4194304"):
        catalog.search("pid:4194304:main")
    with pytest.raises(ProbeError, match="'999999999' is no process id"):
        catalog.search("pid:999999999:main")


def test_a_changed_file_is_offered_anew(catalog: Catalog, app: str) -> None:
    assert f"uprobe:{app}:new" not in specs(catalog.search(app))
    Path(app + ".new").write_bytes(ElfFile(symtab=[("new", FUNC, GLOBAL, 1, 1)]).build())
    os.replace(app + ".new", app)
    assert specs(catalog.search(app)) == [f"uprobe:{app}:new"]


def test_symbols_of_a_process(catalog: Catalog) -> None:
    entries = catalog.search(f"pid:{os.getpid()}:malloc")
    assert entries
    assert {entry.mechanism for entry in entries} <= {"uprobe", "usdt"}
    assert any(entry.spec.endswith(":malloc") for entry in entries)
