# SPDX-License-Identifier: Apache-2.0
"""Error answers of the agent: {"why", "fix"}."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from probes.core.errors import ProbeError

Headers = Mapping[str, str]
JSON = "application/json"


class Refused(ProbeError):
    """Raised to answer a request with an error `status` and these additional headers."""

    def __init__(
        self, status: int, why: str, fix: str = "", headers: Headers | None = None
    ) -> None:
        super().__init__(why, fix)
        self.status = status
        self.headers = dict(headers or {})


def error_body(error: ProbeError) -> bytes:
    """The body of an error answer."""
    return json.dumps({"why": error.why, "fix": error.fix}).encode("ascii") + b"\n"


def complain(line: str) -> None:
    """Print one line on standard error, without control characters."""
    safe = "".join(c if c.isprintable() else "?" for c in line[:400])
    print(f"probetop: {safe}", file=sys.stderr, flush=True)


def status_of(error: ProbeError) -> int:
    """The status of an error answer; 422 for a request that cannot be carried out."""
    return error.status if isinstance(error, Refused) else 422
