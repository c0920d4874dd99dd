# SPDX-License-Identifier: Apache-2.0
"""Offsets from the running kernel's types, against bpftool's reading of the same."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from probes.bpf import btf
from probes.bpf.compiler import compiler_flags
from probes.core.errors import ProbeError
from probes.execs.probe import ExecProbe
from probes.syscalls.probe import SyscallProbe

VMLINUX = Path("/sys/kernel/btf/vmlinux")
needs_btf = pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel has no BTF")
needs_bpftool = pytest.mark.skipif(shutil.which("bpftool") is None, reason="bpftool is missing")

PATHS = sorted(
    {path for probe in (ExecProbe, SyscallProbe) for path in probe.plan({}).offsets.values()}
    | {"task_struct.thread_info.flags", "task_struct.se.vruntime", "mm_struct.pgd"}
)


@cache
def types() -> dict[int, dict[str, Any]]:
    done = subprocess.run(
        ["bpftool", "-j", "btf", "dump", "file", str(VMLINUX)],
        capture_output=True,
        check=True,
    )
    return {entry["id"]: entry for entry in json.loads(done.stdout)["types"]}


def find(at: int, member: str) -> tuple[int, int] | None:
    """(bit offset, type) of a member, looking into anonymous ones, as C does."""
    entry = types()[at]
    while entry["kind"] in ("TYPEDEF", "VOLATILE", "CONST", "RESTRICT", "TYPE_TAG"):
        entry = types()[entry["type_id"]]
    for one in entry.get("members", []):
        if one["name"] == member:
            return one["bits_offset"], one["type_id"]
        if one["name"] == "(anon)" and (inner := find(one["type_id"], member)):
            return one["bits_offset"] + inner[0], inner[1]
    return None


def by_bpftool(path: str) -> int | None:
    name, *members = path.split(".")
    at = next(t["id"] for t in types().values() if t["kind"] == "STRUCT" and t["name"] == name)
    bits = 0
    for member in members:
        found = find(at, member)
        if found is None:
            return None
        bits, at = bits + found[0], found[1]
    return bits // 8


@needs_btf
@needs_bpftool
@pytest.mark.parametrize("path", PATHS)
def test_offsets_are_those_that_bpftool_reads(path: str) -> None:
    assert btf.KernelBTF().offset(path.rstrip("?")) == by_bpftool(path.rstrip("?"))


@needs_btf
@pytest.mark.parametrize(
    "path", ["task_struct.nothing", "no_such_struct.x", "task_struct.mm.nothing"]
)
def test_what_is_not_there_is_none(path: str) -> None:
    assert btf.KernelBTF().offset(path) is None


@needs_btf
def test_helpers_by_their_number() -> None:
    types = btf.KernelBTF()
    assert types.enumerator("bpf_func_id", "BPF_FUNC_map_lookup_elem") == 1
    assert types.enumerator("bpf_func_id", "BPF_FUNC_of_the_future") is None
    assert types.enumerator("no_such_enum", "X") is None


@needs_btf
def test_arguments_of_tracepoints() -> None:
    types = btf.KernelBTF()
    # sched_switch(preempt, prev, next, prev_state), which had three before Linux 5.18.
    assert types.tracepoint_arguments("sched_switch") in (3, 4)
    assert types.tracepoint_arguments("sys_enter") == 2
    assert types.tracepoint_arguments("no_such_tracepoint") is None


@needs_btf
def test_plans_become_flags() -> None:
    flags = compiler_flags(SyscallProbe.plan({}), btf.KernelBTF())
    values = dict(flag[2:].split("=") for flag in flags if flag.startswith("-DOFF_"))
    assert values.keys() == SyscallProbe.plan({}).offsets.keys()
    # Of the two ways in which kernels keep a cgroup's ancestors this one has one.
    assert (int(values["OFF_ANCESTORS"]) < 0) != (int(values["OFF_ANCESTOR_IDS"]) < 0)
    assert all(int(value) >= -1 for value in values.values())


def test_without_libbpf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(btf, "_LIBRARIES", ("libnothing.so.1",))
    with pytest.raises(ProbeError, match="libbpf is missing") as caught:
        btf.KernelBTF()
    assert "libbpf1" in caught.value.fix
