# SPDX-License-Identifier: Apache-2.0
"""How clang compiles each .bpf.c file without BCC: for clangd, and for a test.

`python -m tests.tooling.compile_commands` writes compile_commands.json into the folder of the
project. Macros are those that the loader gives on this machine, with all optional parts on;
offsets come from the running kernel's BTF, which needs no root.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from probes.bpf.btf import KernelBTF
from probes.bpf.compiler import compiler_flags
from probes.bpf.plan import Plan
from probes.latency.planner import PARTS
from tests.paths import ROOT
from tui.registry import REGISTRY

PARAMS: dict[str, Mapping[str, Any]] = {"syscalls": {"latency": True}}
"""What to ask a probe for, where its usual parameters leave out a part of its program."""
DEFINES: dict[str, Mapping[str, int]] = {
    "latency": {**dict.fromkeys(PARTS.values(), 1), "USE_TEXT": 1, "PT_WIDE": 12},
}
"""Macros of parts that only some targets need."""
ARM = ("-D__TARGET_ARCH_arm64", "-DOFF_TRAMPOLINES=-1")
"""Selects what a program does on arm64, whose kernel has no trampolines of uprobes."""


def plans() -> dict[str, Plan]:
    """The plan of each probe, by name."""
    out = {}
    for entry in REGISTRY:
        probe = entry.probe_class()
        out[entry.name] = probe.plan(PARAMS.get(entry.name, probe().params()))
    return out


def command(name: str, plan: Plan, types: KernelBTF) -> list[str]:
    """clang's arguments for a probe's program; raises ProbeError where the kernel lacks a type."""
    extra = DEFINES.get(name, {})
    given = [f"-D{macro}={value}" for macro, value in extra.items() if macro not in plan.defines]
    include = ROOT / "probes" / "include"
    flags = [flag for flag in compiler_flags(plan, types) if not flag.startswith("-I")]
    return [
        *("clang", "-target", "bpf", "-O2", "-fsyntax-only", "-Wall", "-Wno-unused-function"),
        *("-nostdinc", f"-I{include}", f"-I{include / 'uapi'}", f"-I{ROOT / 'tests' / 'tooling'}"),
        *("-include", "linux/kconfig.h", "-include", "bcc.h", *flags, *given),
        str(ROOT / "probes" / plan.source),
    ]


def commands() -> dict[str, list[str]]:
    """clang's arguments by the name of the source file."""
    types = KernelBTF()
    return {plan.source: command(name, plan, types) for name, plan in plans().items()}


def main() -> int:
    """Write compile_commands.json; returns the exit status."""
    entries = [
        {"directory": str(ROOT), "file": arguments[-1], "arguments": arguments}
        for arguments in commands().values()
    ]
    path = ROOT / "compile_commands.json"
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    print(f"{path}: {len(entries)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
