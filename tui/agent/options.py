# SPDX-License-Identifier: Apache-2.0
"""The options of `serve`, besides those of all live commands: addresses and access.

This module imports nothing that is slow to load.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from probes.core.errors import ProbeError
from probes.host.files import read_regular
from tui.settings.validators import UsageError, check_path, checked, shown

PORT = 9435
SHORTEST_TOKEN = 16
MOST_TOKENS = 100
LARGEST_FILE = 1 << 16
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")

Role = Literal["read", "control"]


class Listen(NamedTuple):
    """An address: the `path` of a Unix socket, else `host` (a name or number) and `port`."""

    host: str = "127.0.0.1"
    port: int = PORT
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


DEFAULT = Listen()


class Token(NamedTuple):
    """A secret and its access: read or control."""

    role: Role
    secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The validated options; `linger` in seconds, 0 for ever."""

    listen: Listen = DEFAULT
    tokens: tuple[Token, ...] = ()
    certificate: str | None = None
    key: str | None = None
    insecure: bool = False
    allow_offsets: bool = False
    hosts: tuple[str, ...] = ()
    linger: float = 300.0
    top: int = 20
    cgroups: int = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `serve`."""
    for flag, metavar, text in (
        ("--listen", "ADDR", f"HOST:PORT or unix:/path (default 127.0.0.1:{PORT})"),
        ("--token-file", "FILE", "tokens: lines of `read TOKEN` and `control TOKEN`"),
        ("--tls-cert", "FILE", "the certificate, with those that vouch for it (PEM)"),
        ("--tls-key", "FILE", "its key, if not in the same file"),
        ("--linger", "S", "detach when nobody has watched for S seconds (default 300, 0: never)"),
        ("--top", "N", "/metrics: the N busiest processes of each cgroup (default 20)"),
        ("--cgroups", "N", "/metrics: the N busiest cgroups (default 50)"),
    ):
        parser.add_argument(flag, metavar=metavar, help=text)
    parser.add_argument(
        "--allow-host", metavar="NAME", action="append", help="another name that this machine has"
    )
    parser.add_argument(
        "--insecure", action="store_true", help="tokens without TLS, also from other machines"
    )
    parser.add_argument(
        "--allow-offsets",
        action="store_true",
        help="let control tokens also time FUNCTION+OFFSET and addresses",
    )


def resolve(typed: Mapping[str, Any]) -> ServeOptions:
    """Validate the options and read the tokens; raises UsageError."""
    listen = checked("--listen", typed.get("listen", str(DEFAULT)), check_listen)
    options = ServeOptions(
        listen=listen,
        tokens=read_tokens(typed["token_file"]) if "token_file" in typed else (),
        certificate=_file(typed, "tls_cert"),
        key=_file(typed, "tls_key"),
        insecure=typed.get("insecure", False),
        allow_offsets=typed.get("allow_offsets", False),
        hosts=tuple(checked("--allow-host", h, check_host) for h in typed.get("allow_host", ())),
        linger=checked("--linger", typed.get("linger", "300"), check_linger),
        top=checked("--top", typed.get("top", "20"), check_number(0, 10_000)),
        cgroups=checked("--cgroups", typed.get("cgroups", "50"), check_number(0, 10_000)),
    )
    if options.key and not options.certificate:
        raise UsageError("--tls-key: there is no --tls-cert", "give both")
    if listen.path is not None and options.certificate:
        raise UsageError("--tls-cert: a Unix socket needs none", "leave it out")
    return options


def check_listen(raw: Any) -> Listen:
    """An address as HOST:PORT, [v6]:PORT, unix:/path or /path."""
    text = str(raw)
    fix = f"write 127.0.0.1:{PORT}, [::1]:{PORT} or unix:/run/probetop.sock"
    path = text.removeprefix("unix:")
    if path.startswith("/"):
        if len(os.fsencode(path)) > 107 or "\0" in path:
            raise ProbeError("too long for the path of a socket", "choose a shorter one")
        return Listen(path=path)
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:/\s\[\]]+))(?::(\d{1,5}))?", text)
    if not found:
        raise ProbeError("not an address", fix)
    port = int(found[3]) if found[3] else PORT
    if port > 65535:
        raise ProbeError("there is no such port", fix)
    return Listen(found[1] or found[2], port)


def check_host(raw: Any) -> str:
    """A host name, as browsers and curl send it."""
    if not NAME.fullmatch(str(raw)):
        raise ProbeError("not a host's name", "give a name such as web-3.example.org")
    return str(raw).lower()


def check_linger(raw: Any) -> float:
    """Seconds, 0 for ever."""
    try:
        seconds = float(raw)
    except ValueError:
        raise ProbeError("not a number", "give seconds, for example 60") from None
    if not (seconds == 0 or 1 <= seconds <= 31_536_000) or math.isnan(seconds):
        raise ProbeError("out of range", "give 1 second or more, or 0 to stay attached")
    return seconds


def check_number(low: int, high: int) -> Callable[[Any], int]:
    """Create a validator for a whole number."""

    def check(raw: Any) -> int:
        text = str(raw)
        if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
            raise ProbeError("not such a number", f"choose between {low} and {high}")
        return int(text)

    return check


def _file(typed: Mapping[str, Any], name: str) -> str | None:
    flag = f"--{name.replace('_', '-')}"
    return checked(flag, typed[name], check_path) if name in typed else None


def read_tokens(path: str) -> tuple[Token, ...]:
    """The tokens in a file that not all users can read; raises UsageError."""
    where = f"--token-file {shown(path)}"
    try:
        data = read_regular(path, LARGEST_FILE, forbidden=0o007)
    except ProbeError as error:
        raise UsageError(f"--token-file {error.why}", error.fix) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{where}: cannot be read: {reason}", "check the path") from error
    tokens = tuple(
        token
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1)
        if (token := _token(f"{where} line {number}", line)) is not None
    )
    if not 0 < len(tokens) <= MOST_TOKENS:
        fix = f"write 1 to {MOST_TOKENS} lines such as: control $(openssl rand -hex 24)"
        raise UsageError(f"{where}: it has {len(tokens)} tokens", fix)
    return tokens


def _token(where: str, line: str) -> Token | None:
    words = line.partition("#")[0].split()
    if not words:
        return None
    # The message never repeats the line, which may be a secret.
    if len(words) != 2 or words[0] not in ("read", "control"):
        raise UsageError(f"{where}: not a token", "write `read TOKEN` or `control TOKEN`")
    if len(words[1]) < SHORTEST_TOKEN:
        fix = "make one with: openssl rand -hex 24"
        raise UsageError(f"{where}: shorter than {SHORTEST_TOKEN} characters", fix)
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", words[1]):
        raise UsageError(f"{where}: not all of it can be sent", "use letters and digits")
    return Token("read" if words[0] == "read" else "control", words[1])
