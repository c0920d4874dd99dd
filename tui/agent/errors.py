# SPDX-License-Identifier: Apache-2.0
"""What the agent answers when it does not do what it was asked for: {"why", "fix"}."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from probes.core.errors import ProbeError

Headers = Mapping[str, str]
JSON = "application/json"


class Refused(ProbeError):
    """A request that is answered with an error `status` and these further headers."""

    def __init__(
        self, status: int, why: str, fix: str = "", headers: Headers | None = None
    ) -> None:
        super().__init__(why, fix)
        self.status = status
        self.headers = dict(headers or {})


def error_body(error: ProbeError) -> bytes:
    """The body of an error's answer."""
    return json.dumps({"why": error.why, "fix": error.fix}).encode("ascii") + b"\n"


def complain(line: str) -> None:
    """One line on standard error in which nothing acts on a terminal."""
    safe = "".join(c if c.isprintable() else "?" for c in line[:400])
    print(f"probetop: {safe}", file=sys.stderr, flush=True)


def status_of(error: ProbeError) -> int:
    """The status that it is answered with: what cannot be done as asked is 422."""
    return error.status if isinstance(error, Refused) else 422
