# SPDX-License-Identifier: Apache-2.0
"""Typed, bounded decoding of external input: request bodies, and commands over a link.

A value is parsed as strict JSON, then converted to a msgspec type that states every member, its
type and its limits. All other input raises ProbeError, and no other exception is raised.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from probes.core.errors import ProbeError
from probes.core.limits import MOST_SAMPLE
from tui.settings.validators import NO_ID

T = TypeVar("T")
MOST_TEXT = 500
"""Most characters of any text in a request."""
MOST_TARGETS = 64
MOST_WORDS = 200
"""Most characters of an error's text."""

Text = Annotated[str, Meta(max_length=MOST_TEXT)]
Texts = Annotated[list[Text], Meta(max_length=MOST_TARGETS)]
Pid = Annotated[int, Meta(ge=1, le=NO_ID)]
Uid = Annotated[int, Meta(ge=0, le=NO_ID - 1)]


class NotJson(ProbeError):
    """Raised for bytes that are not one strict JSON value."""


class Options(Struct, forbid_unknown_fields=True):
    """All probe options that a client may set."""

    latency: bool | UnsetType = UNSET
    sample_every: Annotated[int, Meta(ge=1, le=MOST_SAMPLE)] | UnsetType = UNSET
    targets: Texts | UnsetType = UNSET
    set: Text | UnsetType = UNSET
    mode: Text | UnsetType = UNSET
    events: Texts | UnsetType = UNSET
    args: bool | UnsetType = UNSET

    def given(self) -> dict[str, Any]:
        """The options that are set, by name."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in values.items() if value is not UNSET}


OPTION_TYPES: Mapping[str, Any] = {
    **{field.name: field.type for field in msgspec.structs.fields(Options)},
    "add": Text,
    "remove": Text,
}
"""The types of all options that a command may change."""


def strict_json(data: bytes) -> Any:
    """Return the JSON value; raises NotJson for input that JSON readers interpret differently.

    That is NaN and infinities, duplicate names in an object, unpaired surrogates, numbers of
    thousands of digits, and nesting beyond the parser's depth.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_twice
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise NotJson("the body is not JSON", "send one JSON object in UTF-8") from None
    return value


def _no_constant(word: str) -> NoReturn:
    raise ValueError(word)


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name is there twice")
    return out


def typed(value: Any, kind: type[T], where: str, *, strict: bool = True) -> T:
    """Convert the value to `kind`; raises ProbeError with the reason and its place `where`.

    Unless `strict`, a text may stand for a number, as in a URL's query.
    """
    try:
        return msgspec.convert(value, kind, strict=strict)
    except (msgspec.ValidationError, RecursionError, OverflowError, UnicodeError) as error:
        raise ProbeError(f"{where} is wrong: {words_of(error)}", "see GET /openapi.json") from None


def words_of(error: Exception) -> str:
    """A decoder's message as part of one printable line."""
    text = str(error).replace("`", "'").replace("$", "value") or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text[:MOST_WORDS])
