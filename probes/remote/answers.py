# SPDX-License-Identifier: Apache-2.0
"""What another machine answers, decoded by type and size: it may be anything.

Over ssh an answer is a message between Frames, from an agent it is the JSON of a response.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from probes.core.errors import ProbeError
from probes.source import Found

PROTOCOL = 1
"""The version of what both sides say to each other."""
MOST_FOUND, MOST_TEXT, MOST_LINE = 1000, 8192, 500
"""Rows of an answer to a search, characters of a text in it, and of an error's line."""
MOST_NUMBER = 2**53
FAILURES = (msgspec.MsgspecError, RecursionError, OverflowError, UnicodeError)
"""All that decoding raises."""

Text = Annotated[str, Meta(max_length=MOST_TEXT)]
Number = Annotated[int, Meta(ge=0, le=MOST_NUMBER)]
NONSENSE = ProbeError("its answer cannot be understood", "update probetop there")


class Hello(Struct):
    """The first message of a far side."""

    protocol: int


class ListedRow(Struct, array_like=True):
    """Something that can be traced, in a message."""

    spec: Text
    mechanism: Text
    note: Text
    cost: float | None


class FoundRow(Struct):
    """The same in a response."""

    spec: Text
    mechanism: Text
    note: Text = ""
    cost: float | None = None


class SearchResponse(Struct):
    """GET /v1/search."""

    found: Annotated[list[FoundRow], Meta(max_length=MOST_FOUND)]


class ErrorResponse(Struct):
    """Any response with an error's status."""

    why: Text
    fix: Text = ""


class Answer(Struct):
    """A message that answers a command."""

    id: Number
    ok: bool
    why: Text = ""
    fix: Text = ""
    found: Annotated[list[Any], Meta(max_length=MOST_FOUND)] = []


def protocol_of(value: Any) -> int | None:
    """The protocol that a hello names."""
    try:
        return msgspec.convert(value, Hello).protocol
    except FAILURES:
        return None


def answer_of(value: Mapping[str, Any]) -> Answer | None:
    """An answer; a refusal where only its number is right, None where that is not."""
    try:
        return msgspec.convert(value, Answer)
    except FAILURES:
        number = value.get("id")
        if type(number) is not int or not 0 <= number <= MOST_NUMBER:
            return None
        return Answer(number, False, NONSENSE.why, NONSENSE.fix)


def found_of(rows: list[Any]) -> list[Found]:
    """What was found, as far as it is as it should be."""
    out = []
    for value in rows:
        try:
            row = msgspec.convert(value, ListedRow)
        except FAILURES:
            continue
        out.append(_found(row))
    return out


def search_response(data: bytes) -> list[Found]:
    """What an agent has found; raises ProbeError for anything else."""
    try:
        response = msgspec.json.decode(data, type=SearchResponse)
    except FAILURES:
        raise NONSENSE from None
    return [_found(row) for row in response.found]


def _found(row: ListedRow | FoundRow) -> Found:
    known = row.cost is not None and math.isfinite(row.cost)
    return Found(row.spec, row.mechanism, row.note, row.cost if known else None)


def error_response(data: bytes) -> tuple[str, str] | None:
    """Why an agent refused a request and what helps, each one line; None if it does not say."""
    try:
        response = msgspec.json.decode(data, type=ErrorResponse)
    except FAILURES:
        return None
    return line(response.why), line(response.fix)


def line(text: str) -> str:
    """A text of another machine as part of one line, in which nothing acts on a terminal."""
    words = " ".join(text[:MOST_LINE].split())
    return "".join(c if c.isprintable() else "?" for c in words)
