# SPDX-License-Identifier: Apache-2.0
"""Who may ask what: tokens, the Host and Origin headers, and kinds of bodies.

Without tokens everybody on this machine may do everything, and so might a page in a browser on
it: what a browser sends on behalf of a page names another Host or Origin, and is refused.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers

from tui.agent.errors import JSON, Refused
from tui.agent.options import Listen, Token

READING = ("GET", "HEAD")
OPEN = ("/healthz",)
"""What needs no token."""
LOCAL = ("localhost", "127.0.0.1", "[::1]")
ASK = {"WWW-Authenticate": 'Bearer realm="probetop"'}


class Guard:
    """Checks what can be told from a request's head; see `check`."""

    def __init__(self, listen: Listen, tokens: Iterable[Token], hosts: Iterable[str]) -> None:
        self._tokens = [(_digest(token.secret), token.role) for token in tokens]
        self._unix = listen.path is not None
        host = listen.host.lower()
        self._hosts = {*LOCAL, f"[{host}]" if ":" in host else host, *hosts}

    @property
    def open(self) -> bool:
        """Whether no token is needed."""
        return not self._tokens

    def check(self, method: str, path: str, scheme: str, headers: Headers) -> None:
        """Raises Refused for a request that is not to be answered."""
        self._check_host(headers)
        self._check_origin(scheme, headers)
        if path not in OPEN:
            self._check_token(method, headers)
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if has_body and kind != JSON:
            raise Refused(415, "the body is not called JSON", f"send Content-Type: {JSON}")

    def _check_host(self, headers: Headers) -> None:
        # A page in a browser may give its own name this address, but the browser tells it.
        if self._tokens or self._unix:
            return
        given = headers.getlist("host")
        name = _without_port(given[0].lower()) if len(given) == 1 else ""
        if name not in self._hosts:
            fix = "use localhost, or start the agent with --allow-host NAME"
            raise Refused(421, "this agent does not go by that name", fix)

    def _check_origin(self, scheme: str, headers: Headers) -> None:
        origin = headers.get("origin")
        own = f"{scheme}://{headers.get('host', '')}".lower()
        if origin is not None and origin.lower() != own:
            why = "a page of another site may not ask this agent"
            raise Refused(403, why, "ask it by a program, such as curl")

    def _check_token(self, method: str, headers: Headers) -> None:
        if not self._tokens:
            return
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            fix = "send Authorization: Bearer TOKEN, with one of the agent's token file"
            raise Refused(401, "a token is needed", fix, ASK)
        given, role = _digest(secret.strip()), None
        # All of them are compared, so that the time tells nothing.
        for digest, allowed in self._tokens:
            if hmac.compare_digest(digest, given):
                role = allowed
        if role is None:
            raise Refused(401, "the token is wrong", "send one of the agent's token file", ASK)
        if role == "read" and method not in READING:
            raise Refused(403, "the token is for reading only", "use a control token")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and (name.endswith("]") or ":" not in name) else host
