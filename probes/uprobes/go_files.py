# SPDX-License-Identifier: Apache-2.0
"""Whether a Go program keeps the goroutine in a register, so that its calls can be timed."""

from __future__ import annotations

import re

from probes.host.open_file import OpenFile
from probes.symbols.elf import Elf

OLD = "Go moves its stacks, and before Go 1.18 nothing tells the goroutine"
ASSEMBLY = "it is in assembly, where nothing tells the goroutine"
_MAGIC = b"\xff Go buildinf:"
_INLINE = 2
"""Flag of a version that stands in the section itself, from Go 1.18 on."""


def why_untimed(file: OpenFile, symbol: str) -> str:
    """Why a function of a Go program cannot be timed, "" where it can; raises ProbeError."""
    if symbol.endswith(".abi0"):
        return ASSEMBLY
    with Elf(file) as elf:
        info = elf.data(elf.section(".go.buildinfo"), 1 << 20)
    if info[:14] != _MAGIC or len(info) < 34 or not info[15] & _INLINE:
        return OLD
    size = info[32]
    # 1.18 is the first that has the goroutine in a register on x86_64 and arm64 alike.
    return "" if re.match(rb"(devel )?go1\.(1[89]|[2-9]\d)", info[33 : 33 + size]) else OLD
