# SPDX-License-Identifier: Apache-2.0
"""Which tracepoints a kernel has, and where the fields of their records lie.

`tracefs` is where it is mounted, None where it is not. Fields that hold addresses are not for
everybody: whoever knows one of the kernel's knows where all of the kernel is (KASLR).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.suggestions import did_you_mean, near, quote
from probes.host import file_access

_OWN_VALUES = "syscalls"
"""The category whose numbers come from the program that makes the call."""
_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"(?=\s*(?:,|\Z))', re.DOTALL)
_CONVERSION = re.compile(
    r"%[-+ #0]*(\*|\d+)?(?:\.(\*|\d*))?(?:hh|h|ll|l|L|q|j|z|t)?([A-Za-z%])", re.ASCII
)
"""A conversion of the kernel's printf: width, precision and letter."""
_ADDRESSES = "pxXo"
"""Letters of conversions that show addresses: pointers, and numbers that are not decimal."""
_ONLY_ADDRESSES = "vmalloc"
"""The category whose events show the kernel's addresses as decimal numbers."""
_NAMED_ADDRESS = re.compile(r"addr|ptr|(?:^|_)(?:ip|pc|sp|vaddr|caller)(?:_|$)")
"""Names of what is an address, however it is shown."""


class Field(NamedTuple):
    """A field of a tracepoint's record: place and size in bytes; an `array` is no number.

    A `pointer` is one by its type. An `address` is, or may be, the address of something. Of one
    that is `low`, values in the kernel's half of all addresses are left out.
    """

    name: str
    offset: int
    size: int
    signed: bool
    array: bool
    type: str
    pointer: bool = False
    address: bool = False
    low: bool = False


def tracepoints(tracefs: Path | None) -> list[tuple[str, str]]:
    """(category, name) of every tracepoint that programs can be attached to, sorted."""
    if tracefs is None:
        return []
    text = kernel.read_text(tracefs / "available_events")
    if text:
        rows = (line.partition(":") for line in text.splitlines())
        found = {(category, name) for category, _, name in rows}
    else:
        paths = (tracefs / "events").glob("*/*/format")
        found = {(path.parent.parent.name, path.parent.name) for path in paths}
    # ftrace's own records are no tracepoints.
    return sorted(pair for pair in found if pair[0] != "ftrace")


def tracepoint_format(tracefs: Path | None, category: str, name: str) -> Mapping[str, Field]:
    """The fields of a tracepoint's record by name; raises ProbeError if there is none."""
    if tracefs is None:
        why = "tracefs is not mounted, and mounting it was refused"
        raise ProbeError(why, "mount -t tracefs tracefs /sys/kernel/tracing")
    path = tracefs / "events" / category / name / "format"
    text = kernel.read_text(path) if re.fullmatch(r"[\w-]+:\w+", f"{category}:{name}") else None
    if text and category != "ftrace":
        return parse_format(text, category)
    if text is None and os.path.isfile(path):
        raise ProbeError(f"{quote(str(path))} cannot be read", "run as root")
    known = tracepoints(tracefs)
    found = (
        [f"{c}:{n}" for c, n in known if n == name]
        or [f"{category}:{n}" for n in near(name, [n for c, n in known if c == category])]
        or near(f"{category}:{name}", [f"{c}:{n}" for c, n in known])
    )
    shown = quote(f"{category}:{name}")
    fix = did_you_mean(found, "look for it with f", "tracepoint:")
    raise ProbeError(f"this kernel has no tracepoint {shown}", fix)


def key_fields(
    tracefs: Path | None, category: str, name: str, fields: Iterable[str], value: bool = False
) -> list[Field]:
    """The fields that join a pair or, with `value`, the one whose size is measured.

    Raises ProbeError for one that is missing, no number, or an address: only targets of the
    person who starts the program may read those, and no one as a size.
    """
    known = tracepoint_format(tracefs, category, name)
    may = file_access.has_own_rights()
    numbers = [
        n
        for n, f in known.items()
        if not (f.array or f.pointer or (f.address and not may)) and not n.startswith("common_")
    ]
    has = f"it has {', '.join(numbers)}" if numbers else "it has no numbers"
    for field in fields:
        if field not in known:
            why = f"the tracepoint {category}:{name} has no field {quote(field)}"
            raise ProbeError(why, did_you_mean(near(field, numbers), has))
        if known[field].array:
            why = f"the field {field} of {category}:{name} is text, and only numbers join a pair"
            raise ProbeError(why, has)
        if value and known[field].pointer:
            why = f"the field {field} of {category}:{name} is a pointer, which has no size"
            raise ProbeError(why, has)
        if known[field].address and not may:
            why = f"the field {field} of {category}:{name} may hold an address of the kernel"
            fix = f"name the target when probetop is started, or choose another field: {has}"
            raise ProbeError(why, fix)
    # What is no address by its name, type and text may be one all the same.
    low = not may and category != _OWN_VALUES
    return [known[field]._replace(low=low and known[field].size == 8) for field in fields]


def parse_format(text: str, category: str = "") -> dict[str, Field]:
    """The fields that the format file of a tracepoint of some category describes."""
    pattern = r"field:([^;]+);\s*offset:(\d+);\s*size:(\d+);\s*signed:([01]);"
    described, _, fmt = text.partition("\nprint fmt:")
    printed = _printed(fmt)
    found: dict[str, Field] = {}
    for declaration, offset, size, signed in re.findall(pattern, described):
        left, bracket, _ = declaration.partition("[")
        kind, _, name = left.strip().rpartition(" ")
        if "__data_loc" in declaration or "__rel_loc" in declaration:
            # "__data_loc char[] name": a text elsewhere in the record.
            kind, _, name = declaration.strip().rpartition(" ")
        array = bool(bracket) or int(size) not in (1, 2, 4, 8)
        pointer = "*" in declaration and not array
        one = Field(name.lstrip("*"), int(offset), int(size), signed == "1", array, kind, pointer)
        found[one.name] = one._replace(address=_may_be_address(one, category, printed))
    return found


def _may_be_address(field: Field, category: str, printed: Mapping[str, set[str]] | None) -> bool:
    """Whether a number is an address by its type, or by how the event's text shows it."""
    if field.pointer:
        return True
    if field.array or field.size != 8 or field.name.startswith("common_"):
        return False
    if printed is None:
        # What cannot be read vouches for nothing.
        return category != _OWN_VALUES
    letters = printed.get(field.name, set())
    if category == _ONLY_ADDRESSES or (
        category != _OWN_VALUES and _NAMED_ADDRESS.search(field.name)
    ):
        return True
    if category == _OWN_VALUES or field.signed:
        return "p" in letters
    # What is not shown at all may be anything.
    return not letters or not letters.isdisjoint(_ADDRESSES)


def _printed(fmt: str) -> Mapping[str, set[str]] | None:
    """The letters of the conversions that show each field; None for what is not understood.

    `fmt` is what follows "print fmt:": a format in quotes, then arguments in C, in which the
    record is REC.
    """
    literal = _LITERAL.match(fmt.strip())
    if literal is None:
        return None
    wanted: list[str] = []
    for width, precision, letter in _CONVERSION.findall(literal[1].replace("%%", "")):
        wanted += ["d"] * ((width == "*") + (precision == "*")) + [letter]
    rest = fmt.strip()[literal.end() :].strip()
    given = list(_arguments(rest.removeprefix(","))) if rest else []
    if len(given) != len(wanted):
        return None
    found: dict[str, set[str]] = {}
    for letter, argument in zip(wanted, given, strict=True):
        for name in re.findall(r"\bREC->(\w+)", argument):
            found.setdefault(name, set()).add(letter)
    return found


def _arguments(text: str) -> Iterator[str]:
    """Arguments of a call in C, parted by commas outside of brackets and texts."""
    depth, start = 0, 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|[][(){},]', text):
        if token[0] in "([{":
            depth += 1
        elif token[0] in ")]}":
            depth -= 1
        elif token[0] == "," and depth == 0:
            yield text[start : token.start()]
            start = token.end()
    yield text[start:]
