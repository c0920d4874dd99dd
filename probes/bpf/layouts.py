# SPDX-License-Identifier: Apache-2.0
"""Structures that BPF programs and user space share, stated once.

`tests/unit/probes/bpf/test_layouts.py` has clang compare each with the C. Numbers have the
machine's own order of bytes; nothing is padded that the C does not name.
"""

from __future__ import annotations

import struct

from probes.core import histogram


class StructLayout:
    """A structure: its name in C, the file that defines it, and its fields in order.

    A field is "name:format" with a format of the module struct; one without a name is padding. An
    `open_end` has more fields behind these, whose number depends on what is compiled.
    """

    def __init__(self, name: str, file: str, fields: str, open_end: bool = False) -> None:
        self.name, self.file, self.open_end = name, file, open_end
        self.formats: dict[str, str] = {}
        self.offsets: dict[str, int] = {}
        at = 0
        for text in fields.split():
            field, _, code = text.partition(":")
            self.formats[field], self.offsets[field] = code, at
            at += struct.calcsize(f"={code}")
        self.size = at
        self.struct = struct.Struct(f"={''.join(self.formats.values())}")

    def at(self, field: str) -> int:
        """The offset of a field in bytes."""
        return self.offsets[field]

    def picked(self, *fields: str) -> struct.Struct:
        """Unpacks these fields alone, in their order."""
        parts, end = [], 0
        for field in fields:
            parts.append(f"{self.offsets[field] - end}x" if self.offsets[field] > end else "")
            parts.append(self.formats[field])
            end = self.offsets[field] + struct.calcsize(f"={self.formats[field]}")
        rest = f"{self.size - end}x" if self.size > end else ""
        return struct.Struct(f"={''.join(parts)}{rest}")


CONTROL = StructLayout(
    "control",
    "probetop.h",
    "enabled:Q epoch:Q filters:Q cgroup:Q level:Q pid:I uid:I comm:16s sample:Q wake:Q since:Q"
    " started:Q reader:I broker:I round:Q",
)
ROW = StructLayout(
    "row",
    "rows.h",
    "count:Q sum:Q epoch:I start:I key:Q comm:16s extra:4I",
    open_end=True,
)
TOUCHED = StructLayout("touched", "rows.h", "epoch:2I count:2I others:Q pad:5Q")
HISTOGRAM = StructLayout(
    "hist", "hist.h", f"total:Q count:Q missed:Q overflow:Q buckets:{histogram.BUCKETS}I"
)
PEAK = StructLayout("peak", "hist.h", "round:Q value:Q")
OTHER = StructLayout("other", "syscalls.bpf.c", "calls:Q errors:Q")
EXEC_EVENT = StructLayout(
    "exec_event",
    "execs.bpf.c",
    "type:I pid:I time:Q started:Q cgroup:Q ppid:I uid:I ret:i flags:I comm:16s parent:16s"
    " path:128s length:I euid:I",
    open_end=True,
)
EXIT_EVENT = StructLayout(
    "exit_event",
    "execs.bpf.c",
    "type:I pid:I time:Q begun:Q started:Q code:I pad:I comm:16s",
)
EXEC_STATS = StructLayout("stats", "execs.bpf.c", "execs:Q failed:Q exits:Q lost:Q unread:Q pad:3Q")
CPU = StructLayout(
    "cpu",
    "pmc.bpf.c",
    "time:Q busy:Q idle:Q switches:Q wait:Q faults:Q major:Q unattributed:Q shared:Q begun:Q"
    " tid:Q delay:Q had_faults:Q had_major:Q closed:Q burst:Q edge:Q",
    open_end=True,
)
HANDOVER = StructLayout(
    "handover", "pmc.bpf.c", "time:Q seen:Q tid:Q delay:Q had_faults:Q had_major:Q"
)

LAYOUTS = (
    CONTROL, ROW, TOUCHED, HISTOGRAM, PEAK, OTHER, EXEC_EVENT, EXIT_EVENT, EXEC_STATS, CPU,
    HANDOVER,
)  # fmt: skip
