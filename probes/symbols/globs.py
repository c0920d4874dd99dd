# SPDX-License-Identifier: Apache-2.0
"""Matches names with wildcards: `*` is any text, `?` is one character, all else stands for itself.

Names come from files that anybody made and patterns from anybody who asks, so no pattern may take
longer than its length times that of the name. A regular expression with several `.*` would: it
tries all ways to share the name between them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from probes.core.errors import ProbeError
from probes.core.suggestions import quote
from probes.host.file_access import check_time

MOST_PATTERN = 512
"""Characters of the longest pattern."""
_AT_ONCE = 64


def matching(pattern: str, names: Iterable[str]) -> Iterator[str]:
    """Those of `names` that match a pattern in full.

    Raises ProbeError for a pattern that is too long, and when the target at hand has had its time.
    """
    fits = matcher(pattern)
    for number, name in enumerate(names):
        if not number % _AT_ONCE:
            check_time()
        if fits(name):
            yield name


def matcher(pattern: str) -> Callable[[str], bool]:
    """Tells whether a name matches a pattern in full; raises ProbeError for too long a pattern."""
    if len(pattern) > MOST_PATTERN:
        why = f"the pattern {quote(pattern)} has {len(pattern)} characters"
        raise ProbeError(why, f"shorten it, {MOST_PATTERN} characters are the most")
    texts = pattern.split("*")
    pieces = [_piece(text) for text in texts]
    if len(pieces) == 1:
        return lambda name: pieces[0].fullmatch(name) is not None
    first, *middle, last = pieces
    before, behind = len(texts[0]), len(texts[-1])

    def fits(name: str) -> bool:
        at, end = before, len(name) - behind
        if end < at or not first.match(name) or not last.match(name, end):
            return False
        # The first place of each piece leaves most room for the next, so none is tried again.
        for piece in middle:
            found = piece.search(name, at, end)
            if found is None:
                return False
            at = found.end()
        return True

    return fits


def _piece(text: str) -> re.Pattern[str]:
    """Matches the text between two asterisks, whose length is fixed."""
    return re.compile("".join("." if c == "?" else re.escape(c) for c in text), re.DOTALL)
