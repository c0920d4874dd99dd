# SPDX-License-Identifier: Apache-2.0
"""The names of C++ and Rust functions as their source has them, from the symbols of a file.

LLVM's demanglers read them (the package pycxxfilt). They are C++ code that reads what anybody
may have written into a file, so they run in a child without privileges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from probes.core.errors import ProbeError
from probes.host import file_access, unprivileged

LONGEST_SYMBOL = 1024
"""A longer symbol stays as it is."""
LONGEST = 512
"""Characters of a readable name; a longer one is left out, for it could not be told apart."""
MOST = 200_000
"""Symbols of one file that are read."""
_BATCH = 256
"""Symbols whose names a child writes at once."""
_MOST_CHILDREN = 3
"""So many are what one symbol takes at which a child dies; a file with more keeps the rest."""
_BOUNDS = unprivileged.Bounds(memory=64 << 20, cpu=1, seconds=2.0)
_HASH = re.compile(r"::h[0-9a-f]{16}(?=$| \(\.)")
_ESCAPE = re.compile(r"\$(SP|BP|RF|LT|GT|LP|RP|C|u[0-9a-f]{1,6})\$")
_ESCAPES = {"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}
_OPERATOR = re.compile(r"(?<![\w$])operator\s*(\(\)|\[\]|<=>|->\*?|<<=?|>>=?|<=?|>=?)")
_WORD_OPERATOR = re.compile(r"(?<![\w$])operator(?![\w$])")
_PUNCTUATION = re.compile(r"[()<>\[\]{} ]")
_BEHIND = re.compile(r"( const| volatile| &&?| \[[^]]*\]| \([.\w ]*\))+$")


def is_mangled(symbol: str) -> bool:
    """Whether a symbol looks as a C++ or Rust compiler makes them."""
    return symbol.startswith(("_Z", "_R")) and len(symbol) <= LONGEST_SYMBOL


def is_readable(name: str) -> bool:
    """Whether a name may be a readable one: symbols have none of these characters."""
    return "::" in name or "(" in name or "<" in name


def readable(symbols: Iterable[str]) -> dict[str, str]:
    """The readable names of those symbols that have one, with the types of their arguments.

    None where the package is not installed or the child failed: symbols are names as well.
    Raises ProbeError when the target at hand has had its time.
    """
    asked = [symbol for symbol in symbols if is_mangled(symbol)][:MOST]
    found: dict[str, str] = {}
    batch = _BATCH
    for _ in range(_MOST_CHILDREN):
        seconds = min(_BOUNDS.seconds, file_access.check_time())
        try:
            read = _read(asked, batch, _BOUNDS._replace(seconds=seconds))
        except (ProbeError, OSError):
            break
        found.update((s, name) for s, name in zip(asked, read, strict=False) if name)
        del asked[: len(read)]
        if not asked:
            break
        # It died at one of the next: they are read one by one, until the one that it dies at.
        if batch == 1:
            del asked[0]
        batch = 1 if batch > 1 else _BATCH
    return found


def _read(symbols: Sequence[str], batch: int, bounds: unprivileged.Bounds) -> list[str]:
    """A name for each symbol, "" for none, as far as the child gets."""

    def work(library: Any, write: unprivileged.Write) -> None:
        for first in range(0, len(symbols), batch):
            names = [_name(library, symbol) for symbol in symbols[first : first + batch]]
            write("".join(f"{name}\n" for name in names).encode())

    most = len(symbols) * (4 * LONGEST + 1) + 1
    text = unprivileged.run("reading names of functions", "pycxxfilt", work, most, bounds)
    return text.decode("utf-8", "replace").split("\n")[:-1]


def _name(library: Any, symbol: str) -> str:
    try:
        name = library.demangle(symbol) or ""
    except ValueError:
        return ""
    if _HASH.search(name):
        name = _legacy_rust(name)
    return name if len(name) <= LONGEST and name.isprintable() else ""


def _legacy_rust(name: str) -> str:
    """Rust's older symbols are C++'s with a hash, and escapes for what C++ names cannot hold.

    Source: rustc's compiler/rustc_symbol_mangling, legacy.rs.
    """

    def plain(found: re.Match[str]) -> str:
        word = found[1]
        return _ESCAPES.get(word) or chr(min(int(word[1:], 16), 0x10FFFF))

    parts = _HASH.sub("", name).split("::")
    parts = [part[1:] if part.startswith("_$") else part for part in parts]
    return "::".join(_ESCAPE.sub(plain, part).replace("..", "::") for part in parts)


def bare(name: str) -> str:
    """A readable name without the types of arguments, of the result, and what stands behind."""
    text = name if name.endswith(")") and " (." not in name else _BEHIND.sub("", name)
    if "thunk to " in text:
        return text
    # Brackets that belong to the name of an operator open and close nothing.
    word = _WORD_OPERATOR.search(text) if "operator" in text else None
    masked = _OPERATOR.sub(lambda found: "o" * len(found[0]), text) if word else text
    operator = word.start() if word else len(text)
    depth, opened, space = 0, -1, -1
    for found in _PUNCTUATION.finditer(masked):
        letter = found[0]
        if letter in "(<[{":
            if letter == "(" and depth == 0:
                opened = found.start()
            depth += 1
        elif letter != " ":
            depth -= 1
        elif depth == 0 and found.start() < operator:
            space = found.start()
    end = opened if opened > 0 and masked.endswith(")") else len(text)
    return text[space + 1 if 0 <= space < end else 0 : end]


def meant(name: str, names: Mapping[str, str]) -> list[str]:
    """Symbols that a readable name stands for, with or without arguments, sorted.

    `names` is what `readable` returns. The whole name comes before one without arguments.
    """
    wanted = name.replace(" ", "")
    whole = [symbol for symbol, one in names.items() if one.replace(" ", "") == wanted]
    return sorted(whole or [s for s, one in names.items() if bare(one).replace(" ", "") == wanted])


def ending(name: str, names: Mapping[str, str], limit: int = 3) -> list[str]:
    """Readable names whose last parts are `name` ("run", "app::run"), shortest first."""
    behind = "::" + name.replace(" ", "")
    found = {
        one
        for one in names.values()
        if f"::{one.replace(' ', '')}".endswith(behind)
        or f"::{bare(one).replace(' ', '')}".endswith(behind)
    }
    return sorted(found, key=lambda one: (len(one), one))[:limit]
