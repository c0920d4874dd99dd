# SPDX-License-Identifier: Apache-2.0
"""The arguments of `attach`: targets, tokens, and options for the remote side."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from probes.core.errors import ProbeError
from probes.host.files import printable, read_regular, unusable
from probes.remote.http import Address, HttpTransport
from probes.remote.source import RemoteSource, Transport
from probes.remote.ssh import SshTransport, place
from tui.agent import owner_token
from tui.commands.attach_options import TARGET
from tui.settings.options import SETTINGS
from tui.settings.validators import UsageError, checked

FORMS = f"write {TARGET}"
PORT = 9435
LOOPBACK = ("127.0.0.1", "::1")
MOST_TOKEN = 4096


def sources(typed: Mapping[str, Any]) -> list[RemoteSource]:
    """Return an unconnected source for each target. Raises UsageError."""
    targets = list(dict.fromkeys(typed["targets"]))
    passed = arguments(typed)
    token = _token(typed["token_file"]) if "token_file" in typed else None
    made = []
    for target in targets:
        transport = checked("TARGET", target, lambda raw: _transport(raw, typed, passed, token))
        made.append(RemoteSource(transport))
    return made


def arguments(typed: Mapping[str, Any]) -> list[str]:
    """The settings that the remote `stream` validates and uses, as its command-line arguments."""
    out: list[str] = []
    for setting in SETTINGS:
        if not setting.live or setting.name not in typed:
            continue
        flag, value = setting.flags[-1], typed[setting.name]
        if setting.metavar is None:
            out.append(flag)
        else:
            out += [f"{flag}={one}" for one in (value if setting.many else [value])]
    return out


def _transport(
    target: str, typed: Mapping[str, Any], passed: list[str], token: str | None
) -> Transport:
    try:
        url = urlsplit(target)
    except ValueError:
        raise ProbeError("not a target", FORMS) from None
    if url.scheme == "ssh":
        return SshTransport(target, place(url), passed, typed.get("remote_command"))
    if passed:
        option = passed[0].partition("=")[0]
        raise ProbeError(f"{option} is for ssh", "an agent has its own settings; leave it out")
    if url.scheme == "unix" and url.path.startswith("/") and "\0" not in url.path:
        return HttpTransport(target, Address("localhost", path=url.path), token)
    if url.scheme not in ("http", "https"):
        raise ProbeError("not a target", FORMS)
    tls = _trust(typed.get("ca_file")) if url.scheme == "https" else None
    host, port = _host(url)
    if token is None:
        host, token = _own(host, port)
    if token is not None and tls is None and host == "localhost":
        # One of its addresses may have another program on the same port.
        raise ProbeError("a token goes to an address, and localhost is a name", "say 127.0.0.1")
    if token is not None and tls is None and host not in LOOPBACK:
        raise ProbeError("a token would be sent for everybody to read", "use https://")
    return HttpTransport(target, Address(host, port, tls=tls), token)


def _host(url: SplitResult) -> tuple[str, int]:
    try:
        port = url.port or PORT
    except ValueError:
        raise ProbeError("not a port", FORMS) from None
    host = url.hostname
    if not host or url.path not in ("", "/") or url.query or url.username:
        raise ProbeError("not a target", FORMS)
    if not all(c.isalnum() or c in ".-_:%" for c in host):
        raise ProbeError("not a host", FORMS)
    return host, port


def _own(host: str, port: int) -> tuple[str, str | None]:
    """Return the local agent's address and the token that it created for the calling user.

    A token is sent only to its own address, because a name could resolve to another program's port.
    """
    for address in LOOPBACK if host == "localhost" else (host,):
        token = owner_token.find(address, port)
        if token is not None:
            return address, token
    return host, None


def _trust(path: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        why = f"--ca-file {printable(path or '')}: cannot be read as certificates"
        raise ProbeError(why, "give a file in PEM format") from error


def _token(path: str) -> str:
    """Read a token from a file that no other user may read: the last word of its only line."""
    try:
        data = read_regular(path, MOST_TOKEN, pipe=True, forbidden=0o077)
    except ProbeError as error:
        raise UsageError(f"--token-file {error.why}", error.fix) from error
    except (OSError, ValueError) as error:
        problem = unusable("read", path, error)
        raise UsageError(f"--token-file: {problem.why}", problem.fix) from error
    lines = [line.split() for line in data.decode("ascii", "replace").splitlines()]
    words = [line[-1] for line in lines if line and not line[0].startswith("#")]
    if len(words) != 1 or not words[0].isprintable():
        why = f"--token-file {printable(path)}: it is to hold one token"
        raise UsageError(why, "write one line, with the token that the agent's file has")
    return words[0]
