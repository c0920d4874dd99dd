# SPDX-License-Identifier: Apache-2.0
"""An HTTP/1.1 parser that refuses expensive requests of unknown clients by their head.

h11 needs about 20 microseconds for each chunk of a body, which may be one byte long, and as long
for each line of a head. A body must therefore have a length, and the number of lines is limited.
"""

from __future__ import annotations

import h11

MOST_HEAD = 1 << 14
"""Most bytes of a request's head."""
MOST_LINES = 128
"""Most lines of a request's head."""


class Parser(h11.Connection):
    """Parses requests; `unsized` is True if one was refused because its body has no length."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MOST_HEAD)
        self.unsized = False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next event; raises h11.RemoteProtocolError for a refused request."""
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
