# SPDX-License-Identifier: Apache-2.0
"""Of a recording's records what is compared of runs, as `probes.recording.codec` writes it.

Each decoder knows one type; what a type does not have is skipped over, which is most of a record.
Numbers are checked by who adds them up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from probes.core import histogram as hdr
from probes.core.frame import Filters, Host
from probes.recording.codec import codec_for

Name = Annotated[str, Meta(max_length=128)]


Spec = Annotated[str, Meta(max_length=16_384)]


Int = Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)]
"""What tables hold many of: longer ones, which no machine has, are left to who reads Frames."""


class _Buckets(Struct, array_like=True):
    steps: Annotated[list[Int], Meta(max_length=hdr.BUCKETS)]
    values: Annotated[list[Int], Meta(max_length=hdr.BUCKETS)]
    gone: list[Int] = []


class EncodedHistogram(Struct, array_like=True):
    buckets: Raw
    n: Int
    total: Int


class _Timed(Struct, array_like=True):
    keys: list[Name]
    values: list[EncodedHistogram]
    gone: list[Name] = []


class _Named(Struct, array_like=True):
    keys: list[Name]
    values: list[tuple[Int, Int]]
    gone: list[Name] = []


class _ById(Struct, array_like=True):
    keys: list[Int]
    values: list[tuple[Int, Int, Int, Int | None]]
    gone: list[Int] = []


class _ByEvent(Struct, array_like=True):
    keys: list[tuple[Int, Name]]
    values: list[tuple[Int, Int, Int]]
    gone: list[tuple[Int, Name]] = []


class _Comms(Struct, array_like=True):
    keys: list[Int]
    values: list[Name]
    gone: list[Int] = []


class EncodedTargets(Struct, array_like=True):
    keys: list[Spec]
    values: list[dict[str, Raw]]
    gone: list[Spec] = []


class Fields(Struct):
    """Of all Samples, what is compared; the rest is skipped over."""

    state: Name | UnsetType = UNSET
    generation: Int | UnsetType = UNSET
    counted: float | UnsetType | None = UNSET
    duty: Raw = Raw()
    failed_duty: Raw = Raw()
    calls: Raw = Raw()
    latency: Raw = Raw()
    events: Raw = Raw()
    targets: Raw = Raw()
    tasks: Raw = Raw()
    readings: Raw = Raw()
    cpus: Raw = Raw()
    cpu_readings: Raw = Raw()
    comms: Raw = Raw()


class _Record(Struct):
    time: float | UnsetType = UNSET
    mono: float | UnsetType = UNSET
    host: Raw = Raw()
    filters: Raw = Raw()
    samples: tuple[list[str], list[tuple[str, Fields]]] | UnsetType = UNSET


RECORD, TIMED = msgspec.json.Decoder(_Record), msgspec.json.Decoder(_Timed)


TARGETS, HISTOGRAM = msgspec.json.Decoder(EncodedTargets), msgspec.json.Decoder(EncodedHistogram)


COMMS, TEXTS = msgspec.json.Decoder(_Comms), msgspec.json.Decoder(list[Name])


EVENTS = msgspec.json.Decoder(list[tuple[str, Raw]])


HOST, FILTERS = codec_for(Host), codec_for(Filters)


_NAMED, _BY_ID = msgspec.json.Decoder(_Named), msgspec.json.Decoder(_ById)


_BY_EVENT, _BUCKETS = msgspec.json.Decoder(_ByEvent), msgspec.json.Decoder(_Buckets)


Columns = tuple[Sequence[Any], Sequence[tuple[Any, ...]], Sequence[Any]]
"""Keys, what each counted, and keys that are gone."""


def _by_name(data: Raw | bytes) -> Columns:
    columns = _NAMED.decode(data)
    return columns.keys, columns.values, columns.gone


def _by_id(data: Raw | bytes) -> Columns:
    columns = _BY_ID.decode(data)
    return list(accumulate(columns.keys)), columns.values, list(accumulate(columns.gone))


def _by_event(data: Raw | bytes) -> Columns:
    columns = _BY_EVENT.decode(data)
    return _pairs(columns.keys), columns.values, _pairs(columns.gone)


def _pairs(keys: Sequence[tuple[int, str]]) -> Sequence[tuple[int, str]]:
    return list(zip(accumulate([n for n, _ in keys]), [text for _, text in keys], strict=True))


TABLES = {
    "calls": _by_name,
    "tasks": _by_id,
    "cpus": _by_id,
    "readings": _by_event,
    "cpu_readings": _by_event,
}
"""Decoders of tables of counters, by the name of their field."""


def entries(histogram: EncodedHistogram) -> Iterable[tuple[int, int]]:
    """Buckets, and what is in each."""
    buckets = _BUCKETS.decode(histogram.buckets)
    if buckets.gone:
        raise ValueError("a bucket that went")
    return zip(accumulate(buckets.steps), buckets.values, strict=True)
