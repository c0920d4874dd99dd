# SPDX-License-Identifier: Apache-2.0
"""Opens the agent's listening socket and reads its certificate, while it has privileges."""

from __future__ import annotations

import ipaddress
import socket
import ssl

from probes.core.errors import ProbeError
from probes.host.privileges import User
from tui.agent.http.unix_socket import BACKLOG, open_unix
from tui.agent.options import Listen, ServeOptions
from tui.settings.validators import UsageError


def open_socket(options: ServeOptions, user: User, owner: User) -> socket.socket:
    """The listening socket; raises UsageError for an unsafe address, ProbeError for one in use.

    A Unix socket belongs to `user`, the agent's later user; `owner` started the agent.
    """
    if options.listen.path is not None:
        return open_unix(options.listen.path, user, (user.uid, owner.uid))
    family, address = _resolved(options.listen)
    if not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        _check_safe(options)
    # asyncio sets TCP_NODELAY only if the socket names its protocol.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        why = f"cannot listen on {options.listen}: {error.strerror}"
        raise ProbeError(why, "choose another address with --listen") from error
    return sock


def _resolved(listen: Listen) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such name"
        why = f"--listen {listen}: {reason}"
        raise UsageError(why, "give an address of this machine") from error
    family, _, _, _, address = found[0]
    return family, address  # type: ignore[return-value]


def _check_safe(options: ServeOptions) -> None:
    where = f"--listen {options.listen}: other machines may reach it"
    if not options.tokens:
        raise UsageError(where, "give tokens with --token-file, or listen on 127.0.0.1")
    if not (options.certificate or options.insecure):
        fix = "encrypt with --tls-cert and --tls-key, or say --insecure"
        raise UsageError(f"{where}, and tokens are sent in clear", fix)


def tls(options: ServeOptions) -> ssl.SSLContext | None:
    """Read the certificate and key; raises UsageError."""
    if options.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without this, OpenSSL would ask for a password on the terminal and block.
        context.load_cert_chain(options.certificate, options.key, password=lambda: b"")
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        why = f"--tls-cert, --tls-key: cannot be used: {reason}"
        raise UsageError(why, "give PEM files, the key without a password") from error
    return context
