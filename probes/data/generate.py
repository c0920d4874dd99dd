# SPDX-License-Identifier: Apache-2.0
"""Writes the system call tables beside this file from the PyPI package `system-calls`.

    pip install system-calls==7.2 && python probes/data/generate.py

That package (https://github.com/hrw/syscalls-table, MIT) is generated from the kernel's own
tables of every release. It is not a dependency of probetop: it would bring jinja2 and 49
architectures along for four tables.

A table is text: each line names the number of its first call, then calls with consecutive
numbers.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
X32_BIT = 0x40000000
WIDTH = 100

# Calls that Linux dropped: older kernels, and programs that probe for them, still use them.
DROPPED = {
    "x86_64": {
        "uselib": 134,
        "_sysctl": 156,
        "create_module": 174,
        "get_kernel_syms": 177,
        "query_module": 178,
        "nfsservctl": 180,
        "getpmsg": 181,
        "putpmsg": 182,
        "afs_syscall": 183,
        "tuxcall": 184,
        "security": 185,
        "vserver": 236,
    },
    "i386": {
        "break": 17,
        "stty": 31,
        "gtty": 32,
        "ftime": 35,
        "prof": 44,
        "lock": 53,
        "mpx": 56,
        "ulimit": 58,
        "uselib": 86,
        "profil": 98,
        "idle": 112,
        "create_module": 127,
        "get_kernel_syms": 130,
        "bdflush": 134,
        "afs_syscall": 137,
        "_sysctl": 149,
        "query_module": 167,
        "nfsservctl": 169,
        "getpmsg": 188,
        "putpmsg": 189,
        "vserver": 273,
    },
    "arm64": {"nfsservctl": 42},
}


def lines(table: dict[str, int]) -> list[str]:
    """The text form of a table from names to numbers."""
    out: list[str] = []
    expected = None
    for name, number in sorted(table.items(), key=lambda item: item[1]):
        if number == expected and len(out[-1]) + 1 + len(name) <= WIDTH:
            out[-1] += f" {name}"
        else:
            out.append(f"{number} {name}")
        expected = number + 1
    return out


def main() -> int:
    """Writes <arch>.txt for every architecture that `probes.core.syscall_names` knows."""
    source = import_module("system_calls").syscalls()
    for arch in ("x86_64", "i386", "arm64", "arm", "x32"):
        table = dict(source.load_arch_table(arch))
        if arch == "x32":
            # Below 512 an x32 call has the number and the name of the 64-bit one.
            table = {name: nr ^ X32_BIT for name, nr in table.items() if nr ^ X32_BIT >= 512}
        for name, number in DROPPED.get(arch, {}).items():
            table.setdefault(name, number)
        numbers = list(table.values())
        assert len(set(numbers)) == len(numbers), f"two calls share a number on {arch}"
        text = "\n".join([f"# {arch}, Linux {source.linux_version}", *lines(table)]) + "\n"
        (HERE / f"{arch}.txt").write_text(text, encoding="ascii")
        print(f"{arch}: {len(table)} calls", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
