# SPDX-License-Identifier: Apache-2.0
"""Opening what the agent listens on, and reading its certificate, while it still may."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import stat
from contextlib import suppress

from probes.base import ProbeError
from probes.privileges import NOBODY, User
from tui.agent.options import Listen, ServeOptions
from tui.checks import UsageError

BACKLOG = 128


def open_socket(options: ServeOptions, owner: User) -> socket.socket:
    """The listening socket; raises UsageError for an unsafe address, ProbeError for one in use.

    A Unix socket belongs to `owner`, the user that the agent becomes.
    """
    if options.listen.path is not None:
        return _open_unix(options.listen.path, owner)
    family, address = _resolved(options.listen)
    if not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        _check_safe(options)
    sock = socket.socket(family, socket.SOCK_STREAM)
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
        raise UsageError(where, "say with --token-file who may ask, or listen on 127.0.0.1")
    if not (options.certificate or options.insecure):
        fix = "encrypt with --tls-cert and --tls-key, or say --insecure"
        raise UsageError(f"{where}, and tokens are sent in clear", fix)


def _open_unix(path: str, owner: User) -> socket.socket:
    """A socket that its owner and their group may connect to; root's if that is nobody."""
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        sock.bind(path)
        # Whatever else runs as nobody has no business here.
        if os.geteuid() == 0 and owner.uid != NOBODY:
            os.chown(path, owner.uid, owner.gid)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        why = f"cannot listen on {path}: {error.strerror}"
        raise ProbeError(why, "choose another path with --listen") from error
    finally:
        os.umask(before)
    return sock


def _remove_stale(path: str) -> None:
    """Removes a socket that nobody listens on any more: the last agent could not."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise UsageError(f"--listen {path}: it exists already", "choose another path")
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(OSError):
                os.unlink(path)
            return
        except OSError:
            # Full, or slow, but there.
            pass
    raise ProbeError(f"cannot listen on {path}: somebody does already", "end it, or choose another")


def tls(options: ServeOptions) -> ssl.SSLContext | None:
    """The certificate and key, read; raises UsageError."""
    if options.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A password would be asked for on the terminal, for ever.
        context.load_cert_chain(options.certificate, options.key, password=lambda: b"")
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        why = f"--tls-cert, --tls-key: cannot be used: {reason}"
        raise UsageError(why, "give PEM files, the key without a password") from error
    return context
