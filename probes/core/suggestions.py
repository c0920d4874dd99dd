# SPDX-License-Identifier: Apache-2.0
"""Names near to one that somebody misspelt, and how names are shown in a message."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from heapq import nlargest

SHOWN = 80
"""Most characters of what somebody typed that a message repeats."""
_COMPARED = 200
_LONGER = 12


def quote(text: str) -> str:
    """What somebody typed, in quotes, short and without any control character."""
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")


def near(name: str, names: Iterable[str], limit: int = 3, cutoff: float = 0.7) -> list[str]:
    """Up to `limit` of `names` that `name` may have meant, the nearest first.

    Those that differ in case or outer underscores come first, then those with a word more
    in front, then difflib's from its ratio `cutoff` on. Only names that share most pairs of
    letters reach difflib, which is slow.
    """
    if len(name) > SHOWN:
        # Nobody misspells such a name, and comparing it takes time by the square of its length.
        return []
    low = name.lower()
    bare = low.strip("_")
    pairs = {low[i : i + 2] for i in range(len(low) - 1)} or {low}
    rest = (n for n in names if len(n) <= len(low) + _LONGER and n != name)
    best = nlargest(
        _COMPARED, rest, key=lambda n: _shared(pairs, n.lower()) - abs(len(n) - len(low))
    )
    same = [n for n in best if n.lower().strip("_") == bare]
    longer = [n for n in best if len(low) > 3 and n.lower().endswith("_" + bare)]
    return list(dict.fromkeys([*same, *longer, *get_close_matches(name, best, limit, cutoff)]))[
        :limit
    ]


def _shared(pairs: set[str], name: str) -> int:
    """Twice the pairs of letters that `name` has too."""
    return 2 * sum(pair in name for pair in pairs)


def did_you_mean(names: Iterable[str], otherwise: str = "", prefix: str = "") -> str:
    """The fix of an error about a misspelt name, `otherwise` when there is no near name."""
    *first, last = [prefix + name for name in names] or [""]
    if not last:
        return otherwise
    return f"did you mean {', '.join(first)} or {last}" if first else f"did you mean {last}"
