# SPDX-License-Identifier: Apache-2.0
"""The protobuf format of Prometheus, which alone carries native histograms to it.

prometheus_client does not write it. The few messages that are needed are those of
`io.prometheus.client` (metrics.proto of prometheus/client_model), each MetricFamily with its
length before it; the numbers here are that file's field numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from tui.agent.metrics.families import Family
from tui.agent.metrics.histogram import SCHEMA, ZERO_THRESHOLD, Spread

CONTENT_TYPE = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
)

_VARINT, _FIXED64, _BYTES = 0, 1, 2
_DOUBLE = struct.Struct("<d")
_TYPES = {"counter": 0, "gauge": 1, "histogram": 4}
_HOLDERS = {"counter": 3, "gauge": 2, "histogram": 7}


def encode(families: Iterable[Family]) -> bytes:
    """All families, as a scraper takes them."""
    return b"".join([_delimited(_family(family)) for family in families])


def varint(number: int) -> bytes:
    """A number of 0 or more; above 64 bits the rest is cut off, as everywhere in protobuf."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else (-number << 1) - 1


def _number(field: int, value: int) -> bytes:
    return varint(field << 3 | _VARINT) + varint(value)


def _double(field: int, value: float) -> bytes:
    return varint(field << 3 | _FIXED64) + _DOUBLE.pack(value)


def _bytes(field: int, data: bytes) -> bytes:
    return varint(field << 3 | _BYTES) + _delimited(data)


def _delimited(data: bytes) -> bytes:
    return varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())


def _family(family: Family) -> bytes:
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    parts = [_text(1, name), _text(2, family.help), _number(3, _TYPES[family.kind])]
    holder = _HOLDERS[family.kind]
    names = [_text(1, text) for text in family.labels]
    for values, value in family.points:
        inner = _histogram(value) if isinstance(value, Spread) else _double(1, value)
        parts.append(_bytes(4, _labels(names, values) + _bytes(holder, inner)))
    return b"".join(parts)


def _labels(names: Sequence[bytes], values: Sequence[str]) -> bytes:
    return b"".join(
        [_bytes(1, name + _text(2, value)) for name, value in zip(names, values, strict=True)]
    )


def _histogram(spread: Spread) -> bytes:
    """Native buckets, and the classic ones for who keeps both."""
    native = spread.native()
    parts = [_number(1, spread.count), _double(2, spread.sum)]
    parts += [_bytes(3, _number(1, n) + _double(2, bound)) for bound, n in spread.classic()]
    parts += [_number(5, _zigzag(SCHEMA)), _double(6, ZERO_THRESHOLD), _number(7, native.zero)]
    parts += [
        _bytes(12, _number(1, _zigzag(span.offset)) + _number(2, span.length))
        for span in native.spans
    ]
    if native.deltas:
        parts.append(_bytes(13, b"".join([varint(_zigzag(delta)) for delta in native.deltas])))
    return b"".join(parts)
