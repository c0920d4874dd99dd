# SPDX-License-Identifier: Apache-2.0
"""Access: tokens, peers of a Unix socket, the Host and Origin headers, types of bodies.

With a token file every client needs a token. Without one, the user who started the agent and root
have control: on a Unix socket by their uid, on a loopback address by a token that only that user
can read. Other users who may open the socket can read. All other local users can read only what
/proc shows to everybody. A browser's request on behalf of another site's page names another Host or
Origin, and is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Literal

from starlette.datastructures import Headers

from probes.core import kernel
from probes.host.privileges import NOBODY
from tui.agent.errors import JSON, Refused
from tui.agent.options import Listen, Token
from tui.agent.state.client_view import Sight

Access = Literal["public", "read", "control"]
READING = ("GET", "HEAD")
FOR_CONTROL = ("/v1/search",)
"""Requests that need control because they run in root's process, where readers could block them."""
OPEN = ("/healthz",)
"""Paths that need no token."""
PUBLIC = re.compile(
    r"/v1/(probes(/[^/]*)?|latency/targets|filters|interval|frames)|/metrics|/openapi\.json"
)
"""Paths that any local user may GET without a token file, without arguments of programs and texts.

Snapshots and runs contain those, and searches and the doctor start privileged processes.
"""
LOCAL = ("localhost", "127.0.0.1", "[::1]")
ASK = {"WWW-Authenticate": 'Bearer realm="probetop"'}
MINE = "ask as the user who started the agent, with the token that it made (curl -H @FILE)"


def shows_processes(mounts: str | None = None) -> bool:
    """True if /proc shows every process to every user (it is mounted without hidepid)."""
    text = kernel.read_text("/proc/self/mounts") or "" if mounts is None else mounts
    # Split only at the kernel's own separators: a mount's name may contain other whitespace.
    table = [line.split(" ") for line in text.split("\n")]
    options = [words[3] for words in table if words[1:3] == ["/proc", "proc"]]
    found = re.search(r"(?:^|,)hidepid=(\w+)", options[-1] if options else "")
    return found is None or found[1] in ("0", "off")


class Authorizer:
    """Checks a request by its head and its peer; see `check`."""

    def __init__(
        self,
        listen: Listen,
        tokens: Iterable[Token],
        hosts: Iterable[str],
        *,
        owner: int,
        own_token: str | None = None,
        public: bool = True,
    ) -> None:
        """`owner` is the uid of the user who started the agent; `own_token` is that user's token.

        `public` is True if any local user may read something.
        """
        self._tokens: list[tuple[bytes, Access]] = [
            (_digest(token.secret), token.role) for token in tokens
        ]
        self._needs_token = bool(self._tokens)
        if own_token is not None:
            self._tokens.append((_digest(own_token), "control"))
        # Other processes run as nobody too, or appear so from a user namespace of their own.
        self._owners = {0, owner} - {NOBODY}
        self._public = public
        self._unix = listen.path is not None
        host = listen.host.lower()
        self._hosts = {*LOCAL, f"[{host}]" if ":" in host else host, *hosts}

    def check(
        self, method: str, path: str, scheme: str, headers: Headers, peer: int | None
    ) -> Access:
        """Return what the client may do; raises Refused if the request must not be answered.

        `peer` is the uid at the other end of a Unix socket, None for other sockets.
        """
        self._check_host(headers)
        self._check_origin(scheme, headers)
        access: Access = "public"
        if path not in OPEN:
            access = self._access(headers, peer)
            self._check_access(access, method, path)
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if has_body and kind != JSON:
            raise Refused(415, "the body is not called JSON", f"send Content-Type: {JSON}")
        return access

    def sight(self, access: Access) -> Sight:
        """The data that a client with this access sees."""
        if access == "read":
            return "token" if self.knows(access) else "socket"
        return "all" if access == "control" else "public"

    def knows(self, access: Access) -> bool:
        """True if the client showed a token, or owns the agent by the socket's peer."""
        reads_by_token = self._needs_token or not self._unix
        return access == "control" or (access == "read" and reads_by_token)

    def _check_host(self, headers: Headers) -> None:
        # DNS rebinding: a page may give its own name this address, but the browser sends that name.
        if self._needs_token or self._unix:
            return
        given = headers.getlist("host")
        name = _without_port(given[0].lower()) if len(given) == 1 else ""
        if name not in self._hosts:
            fix = "use localhost, or start the agent with --allow-host NAME"
            raise Refused(421, "this agent does not go by that name", fix)

    def _check_origin(self, scheme: str, headers: Headers) -> None:
        origin = headers.get("origin")
        own = f"{scheme}://{headers.get('host', '')}".lower()
        # An embedded request, such as for an image, has no Origin, but has Sec-Fetch-Site.
        embedded = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if embedded or (origin is not None and origin.lower() != own):
            why = "requests from pages of other sites are refused"
            raise Refused(403, why, "ask it by a program, such as curl")

    def _access(self, headers: Headers, peer: int | None) -> Access:
        """Return what the client may do; raises Refused for nothing."""
        if not self._needs_token:
            if self._unix:
                return "control" if peer in self._owners else "read"
            if "authorization" not in headers:
                return "public"
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            fix = "send Authorization: Bearer TOKEN, with one of the agent's token file"
            raise Refused(401, "a token is needed", fix, ASK)
        given, access = _digest(secret.strip()), None
        # All tokens are compared, so that the time reveals nothing.
        for digest, allowed in self._tokens:
            if hmac.compare_digest(digest, given):
                access = allowed
        if access is None:
            raise Refused(401, "the token is wrong", "send one of the agent's token file", ASK)
        return access

    def _check_access(self, access: Access, method: str, path: str) -> None:
        reads = method in READING and path not in FOR_CONTROL
        if access == "public" and not (reads and PUBLIC.fullmatch(path)):
            raise Refused(401, "this is for the user who started the agent", MINE, ASK)
        if access == "public" and not self._public:
            why = "this machine hides processes from other users (/proc has hidepid)"
            raise Refused(401, why, MINE, ASK)
        if access == "read" and not reads:
            if self._unix and not self._needs_token:
                why = "only root and the user who started the agent have control"
                fix = "ask as that user"
            else:
                why, fix = "the token is for reading only", "use a control token"
            raise Refused(403, why, fix)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and (name.endswith("]") or ":" not in name) else host
