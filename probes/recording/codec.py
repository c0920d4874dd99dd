# SPDX-License-Identifier: Apache-2.0
"""Frames as JSON values and back, from the types of their dataclasses' fields.

A value is encoded against the one before it: a mapping as the entries that changed, an
integer as the difference, a dataclass as the fields that changed. Decoding checks every type,
so that a damaged or hostile input is a CodecError and never a Frame of a wrong shape. What
did not change is the very same object in both Frames, as `probes.core.sample` promises.

Numbers, texts and lists have limits: those that a field's type names (see `probes.core.limits`),
else the defaults there. A Frame that was decoded is within them all, however many changes made it.

A field that this version does not know is ignored, and one that is missing takes its default:
older and newer versions read each other as long as fields are only added.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from operator import itemgetter, sub
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from probes.core.changes import gone
from probes.core.frame import Frame
from probes.core.limits import ANY_SIZE, ANY_TEXT, CodecError
from probes.core.sample import Sample
from probes.recording.codec_rows import (
    Buckets,
    Rows,
    changed_entries,
    checked_list,
    columns_of,
    plain,
    says_nothing,
    written_out,
)
from probes.recording.codec_values import IntCodec, LiteralCodec, TextCodec, scalar_codec
from probes.recording.state_size import Watch

_FIRST = itemgetter(0)


class Codec(Protocol):
    """Both ways for one type; `old` is the value before, or None to encode as a whole."""

    def encode(self, new: Any, old: Any) -> Any:
        """The JSON value of `new`, never null unless `new` is None."""

    def decode(self, data: Any, old: Any) -> Any:
        """The value; raises CodecError."""


class _Optional:
    def __init__(self, inner: Codec) -> None:
        self.inner = inner

    def encode(self, new: Any, old: Any) -> Any:
        return None if new is None else self.inner.encode(new, old)

    def decode(self, data: Any, old: Any) -> Any:
        return None if data is None else self.inner.decode(data, old)


class _Sequence:
    """A tuple of any length up to `most`, always as a whole: lists of events are no state."""

    def __init__(self, item: Codec, most: int = ANY_SIZE.size) -> None:
        self.item = item
        self.most = most

    def encode(self, new: Any, old: Any) -> Any:
        return [self.item.encode(value, None) for value in new]

    def decode(self, data: Any, old: Any) -> Any:
        if len(checked_list(data)) > self.most:
            raise CodecError(f"a list of more than {self.most}")
        items = tuple([self.item.decode(value, None) for value in data])
        if isinstance(self.item, TextCodec) and sum([len(text) for text in items]) > ANY_TEXT.size:
            raise CodecError(f"a list of more than {ANY_TEXT.size} characters")
        return items


class _Pair:
    """A tuple of a fixed length, by position: the keys of a mapping."""

    def __init__(self, items: tuple[Codec, ...]) -> None:
        self.items = items
        self.blank = (None,) * len(items)

    def encode(self, new: Any, old: Any) -> Any:
        before = self.blank if old is None else old
        return [
            codec.encode(value, was)
            for codec, value, was in zip(self.items, new, before, strict=True)
        ]

    def decode(self, data: Any, old: Any) -> Any:
        if len(checked_list(data)) != len(self.items):
            raise CodecError("not a list of the right length")
        before = self.blank if old is None else old
        return tuple(
            [
                codec.decode(value, was)
                for codec, value, was in zip(self.items, data, before, strict=True)
            ]
        )


class _Named:
    """A NamedTuple: a list, by position; what is missing at its end takes the defaults."""

    def __init__(self, kind: Any) -> None:
        hints = get_type_hints(kind, include_extras=True)
        self.kind = kind
        self.codecs = tuple(codec_for(hints[name]) for name in kind._fields)
        self.blank = (None,) * len(self.codecs)
        self.integers = all(isinstance(codec, IntCodec) for codec in self.codecs)

    def encode(self, new: Any, old: Any) -> Any:
        if self.integers:
            return list(new) if old is None else list(map(sub, new, old))
        before = self.blank if old is None else old
        return [
            codec.encode(value, was)
            for codec, value, was in zip(self.codecs, new, before, strict=True)
        ]

    def decode(self, data: Any, old: Any) -> Any:
        if type(data) is not list:
            raise CodecError("not a list")
        before = self.blank if old is None else old
        # Longer or shorter than now where fields were added since.
        values = [
            codec.decode(value, was)
            for codec, value, was in zip(self.codecs, data, before, strict=False)
        ]
        try:
            return self.kind(*values)
        except TypeError as error:
            raise CodecError(f"{self.kind.__name__} is incomplete") from error


class _Mapping:
    """Sorted keys, each against the one before it, and their values; see `_columns`.

    Texts keep their order, which may mean something. Against an older mapping only what was
    set, and the keys that were deleted. Apart and in order, keys and values compress to half
    of what pairs do.
    """

    def __init__(self, key: Codec, value: Codec, most: int = ANY_SIZE.size) -> None:
        self.key = key
        self.value = value
        self.most = most

    def encode(self, new: Any, old: Any) -> Any:
        if old is None:
            return self._whole(new)
        if isinstance(self.key, TextCodec) and _is_reordered(new, old):
            return [*self._whole(new), self._keys(list(old))]
        columns = self._columns(changed_entries(new, old))
        deleted = gone(old, new)
        return [*columns, self._keys(deleted)] if deleted else columns

    def _whole(self, new: Any) -> list[Any]:
        return self._columns([(key, None, value) for key, value in new.items()])

    def _columns(self, entries: list[Any]) -> list[Any]:
        """Of entries (key, old, new); sorts them in place, unless their keys are texts."""
        if not isinstance(self.key, TextCodec):
            entries.sort(key=_FIRST)
        encode = self.value.encode
        values = [encode(new, old) for _, old, new in entries]
        return [self._keys([entry[0] for entry in entries]), values]

    def _keys(self, keys: list[Any]) -> list[Any]:
        """The encoded keys; sorts the list in place, unless it is of texts."""
        if not isinstance(self.key, TextCodec):
            keys.sort()
        before = None
        out = []
        for key in keys:
            out.append(self.key.encode(key, before))
            before = key
        return out

    def decode(self, data: Any, old: Any) -> Any:
        encoded, items, gone = columns_of(data)
        values: dict[Any, Any] = {} if old is None else dict(old)
        for key in self._decoded_keys(gone):
            values.pop(key, None)
        for key, item in zip(self._decoded_keys(encoded), items, strict=True):
            value = self.value.decode(item, values.get(key))
            if value is SKIPPED:
                values.pop(key, None)
            else:
                values[key] = value
        if len(values) > self.most:
            raise CodecError(f"a table of more than {self.most} rows")
        return values

    def _decoded_keys(self, data: list[Any]) -> list[Any]:
        before = None
        keys = []
        for item in data:
            before = self.key.decode(item, before)
            keys.append(before)
        return keys


def _is_reordered(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether keys stand in another order than what was there before, and then what is new."""
    if new is old:
        return False
    stayed = [key for key in old if key in new]
    return stayed + [key for key in new if key not in old] != list(new)


class _Skipped:
    """Stands for a value of a class that this version does not have."""


SKIPPED = _Skipped()


class _Dataclass:
    """An object of the fields that differ from the older value, or from the defaults."""

    def __init__(self, kind: Any) -> None:
        hints = get_type_hints(kind, include_extras=True)
        self.kind = kind
        self.codecs = {f.name: codec_for(hints[f.name]) for f in fields(kind)}
        self.defaults = {f.name: _default(f) for f in fields(kind)}
        self.mappings = {
            name
            for name, codec in self.codecs.items()
            if isinstance(codec, _Mapping | Rows | Buckets)
        }

    def encode(self, new: Any, old: Any) -> Any:
        out: dict[str, Any] = {}
        for name, codec in self.codecs.items():
            value = getattr(new, name)
            was = self.defaults[name] if old is None else getattr(old, name)
            if was is value:
                continue
            if old is not None and name in self.mappings:
                # To compare large ones takes as long as to find out what differs.
                encoded = codec.encode(value, was)
                if not says_nothing(encoded):
                    out[name] = encoded
            elif was != value:
                out[name] = codec.encode(value, None if old is None else was)
        return out

    def decode(self, data: Any, old: Any) -> Any:
        if type(data) is not dict:
            raise CodecError("not an object")
        if old is not None and not data:
            return old
        values = {} if old is None else {name: getattr(old, name) for name in self.codecs}
        for name, value in data.items():
            if name in self.codecs:
                values[name] = self.codecs[name].decode(value, values.get(name))
        try:
            return self.kind(**values)
        except TypeError as error:
            raise CodecError(f"{self.kind.__name__} is incomplete") from error


class _Tagged:
    """One of several dataclasses: its name, then its value."""

    def __init__(self, kinds: Iterable[type], skip_unknown: bool) -> None:
        self.codecs = {kind.__name__: _Dataclass(kind) for kind in kinds}
        self.skip_unknown = skip_unknown

    def encode(self, new: Any, old: Any) -> Any:
        name = type(new).__name__
        return [name, self.codecs[name].encode(new, old if type(old) is type(new) else None)]

    def decode(self, data: Any, old: Any) -> Any:
        if type(data) is not list or len(data) != 2 or type(data[0]) is not str:
            raise CodecError("not a tagged value")
        codec = self.codecs.get(data[0])
        if codec is None:
            if self.skip_unknown:
                return SKIPPED
            raise CodecError("an unknown kind of value")
        return codec.decode(data[1], old if type(old) is codec.kind else None)


def _default(f: Field[Any]) -> Any:
    """A field's default; MISSING, which equals no value, where it has none."""
    return f.default if f.default_factory is MISSING else f.default_factory()


def sample_kinds() -> list[type[Sample]]:
    """Sample and all classes derived from it that a loaded module holds under their names.

    Raises TypeError for two of one name, which is all that tells them apart in a recording.
    """
    found: dict[str, type[Sample]] = {}
    left: list[type[Sample]] = [Sample]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        # dataclass(slots=True) makes a second class in the place of the first, which lives on.
        if getattr(sys.modules.get(kind.__module__), kind.__name__, None) is not kind:
            continue
        if kind.__name__ in found:
            modules = f"{found[kind.__name__].__module__} and {kind.__module__}"
            raise TypeError(f"two Sample classes are called {kind.__name__}: in {modules}")
        found[kind.__name__] = kind
    return list(found.values())


def _sample_codec() -> Codec:
    """For any Sample class; those of probes that this version lacks are skipped."""
    return _Tagged(sample_kinds(), skip_unknown=True)


def _union_codec(args: tuple[Any, ...]) -> Codec:
    kinds = [arg for arg in args if arg is not types.NoneType]
    inner = codec_for(kinds[0]) if len(kinds) == 1 else _Tagged(kinds, skip_unknown=False)
    return _Optional(inner) if len(kinds) < len(args) else inner


def codec_for(hint: Any) -> Codec:
    """The codec of a type as written in an annotation; raises TypeError for other types."""
    scalar = scalar_codec(hint)
    if scalar is not None:
        return scalar
    most = plain(hint).most
    hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    origin, args = get_origin(hint), get_args(hint)
    if hint is Sample:
        return _sample_codec()
    if origin in (Union, types.UnionType):
        return _union_codec(args)
    if origin is Literal:
        return LiteralCodec(type(args[0]), args)
    if origin is tuple:
        if args[-1] is Ellipsis:
            return _Sequence(codec_for(args[0]), most)
        return _Pair(tuple(codec_for(arg) for arg in args))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        own = written_out(args[0], args[1])
        return own or _Mapping(codec_for(args[0]), codec_for(args[1]), most)
    if isinstance(hint, type) and is_dataclass(hint):
        return _Dataclass(hint)
    if isinstance(hint, type) and hasattr(hint, "_fields"):
        return _Named(hint)
    raise TypeError(f"no way to encode {hint!r}")


class FrameCodec:
    """Encodes and decodes Frames; building it takes about a millisecond.

    A `light` one leaves the heavy fields of Samples (see `probes.core.schema`) at their defaults
    when decoding, which costs the less: for readers of what is drawn over time. `heavy` has the
    names of these fields by the tag of a Sample's class.
    """

    def __init__(self, light: bool = False) -> None:
        self._codec = _Dataclass(Frame)
        of_samples = self._codec.codecs["samples"]
        assert isinstance(of_samples, _Mapping)
        assert isinstance(of_samples.value, _Tagged)
        codecs = of_samples.value.codecs
        self.heavy = {tag: frozenset(one.kind.schema.heavy) for tag, one in codecs.items()}
        for tag, names in self.heavy.items() if light else ():
            for name in names:
                del codecs[tag].codecs[name]
        self._watch = Watch()

    def encode(self, new: Frame, old: Frame | None = None) -> Any:
        """The JSON value of a Frame, as changes since `old` where that is given."""
        return self._codec.encode(new, old)

    def decode(self, data: Any, old: Frame | None = None, size: int = 0) -> Frame:
        """The Frame; `old` must be the one that it was encoded against. Raises CodecError.

        `size` is how many bytes of JSON the data was: what many changes add up to is bounded.
        """
        frame = self._codec.decode(data, old)
        assert isinstance(frame, Frame)
        self._watch.check(frame, size)
        return frame
