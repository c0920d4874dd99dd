# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 of clients that nobody knows yet: what would take long to read is refused by its head.

h11 needs some 20 microseconds for each chunk of a body, of which one may be one byte, and as long
for each line of a head. So a body has to say its length, and a head has so many lines.
"""

from __future__ import annotations

import h11

MOST_HEAD = 1 << 14
"""Bytes of a request's head."""
MOST_LINES = 128
"""Lines of a request's head."""


class Parser(h11.Connection):
    """Reads requests; `unsized` says that one was refused because its body has no length."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MOST_HEAD)
        self.unsized = False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next of what came; raises h11.RemoteProtocolError for what is refused."""
        if self.their_state is h11.IDLE:
            head, _, _ = self.trailing_data[0].partition(b"\r\n\r\n")
            if head.count(b"\n") > MOST_LINES:
                raise h11.RemoteProtocolError("too many lines", error_status_hint=431)
        event = super().next_event()
        headers = event.headers if isinstance(event, h11.Request) else ()
        if any(name == b"transfer-encoding" for name, _ in headers):
            self.unsized = True
            raise h11.RemoteProtocolError("no length", error_status_hint=411)
        return event
