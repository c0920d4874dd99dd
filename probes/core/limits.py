# SPDX-License-Identifier: Apache-2.0
"""What a decoder accepts: the ranges of numbers, the lengths of texts, the size of a record.

Fields of `probes.core.sample` name their range with one of the types below.
`probes.recording.codec` reads them and refuses every value outside, so that nothing behind a
decoder meets one. The sizes are at least twice what this version's probes produce with all their
tables full at once.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from probes.core import histogram


class CodecError(ValueError):
    """The data does not have the shape that it should."""


class Between(NamedTuple):
    """The lowest and the highest value of a number."""

    low: float
    high: float


class AtMost(NamedTuple):
    """The most characters of a text, or the most items of a list or mapping."""

    size: int


U64 = (1 << 64) - 1
ANY_INT = Between(-(1 << 63), (1 << 63) - 1)
"""An integer whose field names no range."""
ANY_FLOAT = Between(-1e9, 1e11)
"""A number whose field names no range: 1e11 s is the year 5138."""
ANY_TEXT = AtMost(16_384)
"""Characters of a text, or of all texts of a list (an argument vector of 4096 bytes, each of them
as the escape \\xff)."""
ANY_SIZE = AtMost(1 << 20)
"""Items of a list or a mapping."""
MOST_SAMPLE = 65_536
"""The rarest sampling of system calls: one call in so many is timed."""

Count = Annotated[int, Between(0, U64)]
"""A counter of the kernel, or nanoseconds."""
Total = Annotated[int, Between(0, (1 << 72) - 1)]
"""The sum of 64-bit values, added up over the parts of a histogram."""
Variance = Annotated[int, Between(0, (1 << 144) - 1)]
"""The square of a Total, as a variance has it."""
Bucket = Annotated[int, Between(0, histogram.BUCKETS - 1)]
"""The index of a histogram's bucket."""
Id = Annotated[int, Between(0, (1 << 32) - 1)]
"""A process or user id."""
Cpu = Annotated[int, Between(0, (1 << 16) - 1)]
"""A CPU's number, or a socket's; the kernel allows 8192 CPUs."""
Cpus = Annotated[int, Between(1, 1 << 16)]
"""How many CPUs a machine has."""
Small = Annotated[int, Between(-(1 << 31), (1 << 31) - 1)]
"""What a C int holds: a return value, an exit code, a signal."""
Seconds = Annotated[float, Between(1e-3, 86_400.0)]
"""The length of an interval: rates divide by it."""
Share = Annotated[float, Between(0.0, 1e11)]
"""A number that is not below zero: a load, a percentage, nanoseconds."""
Name = Annotated[str, AtMost(1024)]
"""A process's name, a system call, an errno, an event."""
Path = Annotated[str, AtMost(4096)]
"""A file's path, or a cgroup's."""

MOST_PACKED = 32 << 20
"""Bytes of a record before decompression."""
MOST_TEXT = 64 << 20
"""Bytes of JSON in a record, and of all texts in a Frame. 20,000 executions with arguments of
100 bytes are 8 MB; a Frame of 60,000 rows is 1.4 MB."""
MOST_WEIGHT = 256 << 20
"""Bytes of memory that a record's JSON values may take, as `bounded_json` estimates them. With
all tables full at once (60,000 rows of system calls, 160,000 readings, 20,000 executions) they
take about 180 MB."""
MOST_ENTRIES = 1 << 20
"""Entries of all tables of a Frame together, the buckets of histograms among them; with all tables
full there are about 600,000."""
