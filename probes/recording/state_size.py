# SPDX-License-Identifier: Apache-2.0
"""How large a decoded Frame is: changes after changes must not make it grow for ever.

Entries are counted for every Frame, which takes microseconds. Texts are measured each time when
as many bytes of JSON have come as they may have: what came since cannot be more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from probes.core.frame import Frame
from probes.core.limits import MOST_ENTRIES, MOST_TEXT, CodecError
from probes.core.sample import Histogram, Sample


class Watch:
    """Checks the Frames of one reader; raises CodecError for one that is too large."""

    def __init__(self) -> None:
        self._came = 0

    def check(self, frame: Frame, size: int) -> None:
        """Take in a Frame that was decoded from `size` bytes of JSON."""
        if sum([entries(sample) for sample in frame.samples.values()]) > MOST_ENTRIES:
            raise CodecError(f"a frame of more than {MOST_ENTRIES} rows")
        self._came += size
        if self._came > MOST_TEXT:
            self._came = characters(frame)
            if self._came > MOST_TEXT:
                raise CodecError(f"a frame with more than {MOST_TEXT / 1e6:.0f} MB of text")


def entries(sample: Sample) -> int:
    """Entries of all tables of a Sample, with the buckets of its histograms."""
    count, with_buckets = 0, sample.schema.with_buckets()
    for field in _fields(type(sample)):
        value = getattr(sample, field)
        if isinstance(value, Mapping | tuple):
            count += len(value)
            if field in with_buckets and isinstance(value, Mapping):
                count += sum([_buckets(item) for item in value.values()])
    return count


def copied(frame: Frame, before: Frame) -> int:
    """Entries of the tables of a Frame that are not the very same as in the Frame before.

    A change of one entry makes a copy of its table, and readers look at all of it.
    """
    count = 0
    for name, sample in frame.samples.items():
        was = before.samples.get(name)
        if sample is not was:
            values = [(getattr(sample, f), getattr(was, f, None)) for f in _fields(type(sample))]
            count += sum([len(v) for v, w in values if isinstance(v, Mapping) and v is not w])
    return count


_KNOWN: dict[type, tuple[str, ...]] = {}


def _fields(kind: type) -> tuple[str, ...]:
    names = _KNOWN.get(kind)
    if names is None:
        names = _KNOWN[kind] = tuple([field.name for field in fields(kind)])
    return names


def _buckets(value: Any) -> int:
    histogram: Histogram = getattr(value, "histogram", value)
    return len(histogram.buckets) + len(histogram.peaks)


def characters(value: Any) -> int:
    """Characters of all texts in a value of a Frame, of both keys and values."""
    kind = type(value)
    if kind is str:
        return len(value)
    if kind in (int, float, bool, type(None)):
        return 0
    if isinstance(value, Mapping):
        return sum([characters(key) + characters(item) for key, item in value.items()])
    if isinstance(value, tuple):
        return sum([characters(item) for item in value if type(item) is not int])
    if is_dataclass(value):
        return sum([characters(getattr(value, name)) for name in _fields(kind)])
    return 0
