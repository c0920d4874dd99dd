# SPDX-License-Identifier: Apache-2.0
"""How a link to another machine stands, as the screen shows it."""

from __future__ import annotations

from typing import Literal, NamedTuple


class LinkState(NamedTuple):
    """`state` "connecting" is before the first Frame ever, "lost" after one that broke.

    `heard` are this machine's monotonic seconds when the newest Frame came, None for never;
    `why` says in a few words what went wrong last; `received` counts bytes.
    """

    state: Literal["connecting", "live", "lost"] = "connecting"
    heard: float | None = None
    why: str | None = None
    received: int = 0
