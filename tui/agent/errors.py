# SPDX-License-Identifier: Apache-2.0
"""What the agent answers when it does not do what it was asked for: {"why", "fix"}."""

from __future__ import annotations

import json
from collections.abc import Mapping

from probes.base import ProbeError

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


def status_of(error: ProbeError) -> int:
    """The status that it is answered with: what cannot be done as asked is 422."""
    return error.status if isinstance(error, Refused) else 422
