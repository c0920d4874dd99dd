# SPDX-License-Identifier: Apache-2.0
"""What `serve` takes: addresses, token files, and what is refused because it is not safe."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from probes.core.errors import ProbeError
from probes.host.privileges import NOBODY, User, service_user
from tui.agent.http import sockets
from tui.agent.options import Listen, ServeOptions, Token, check_listen, read_tokens, resolve
from tui.settings.validators import UsageError

USER = User(NOBODY, NOBODY, None)
GOOD = "control 0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("127.0.0.1:9435", "127.0.0.1", 9435, None),
        ("localhost", "localhost", 9435, None),
        ("[::1]:80", "::1", 80, None),
        ("[fe80::1]", "fe80::1", 9435, None),
        ("web-3.example.org:0", "web-3.example.org", 0, None),
        ("unix:/run/a.sock", "127.0.0.1", 9435, "/run/a.sock"),
        ("/run/a.sock", "127.0.0.1", 9435, "/run/a.sock"),
    ],
)
def test_addresses(text: str, host: str, port: int, path: str | None) -> None:
    assert check_listen(text) == Listen(host, port, path)


@pytest.mark.parametrize(
    "text", ["", ":9435", "::1", "a:b", "a:99999", "unix:relative", "a b:1", "/" + "x" * 200, "/\0"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ProbeError):
        check_listen(text)


def write(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_token_file(tmp_path: Path) -> None:
    text = f"# who may ask\n\nread  a-token_of.24~characters # the scraper\n{GOOD}\n"
    assert read_tokens(write(tmp_path / "t", text)) == (
        Token("read", "a-token_of.24~characters"),
        Token("control", "0123456789abcdef"),
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has 0 tokens"),
        ("# nothing\n", "it has 0 tokens"),
        ("control short\n", "line 1: shorter than 16"),
        (f"{GOOD}\nwrite 0123456789abcdef\n", "line 2: not a token"),
        ("0123456789abcdef0123\n", "line 1: not a token"),
        ("control 0123456789abcdef extra\n", "line 1: not a token"),
        ("control 0123456789abcd\u00e9f\n", "line 1: not all of it"),
        ("x" * 70_000, "larger than"),
        (f"{GOOD}\n" * 101, "it has 101 tokens"),
    ],
)
def test_what_is_no_token_file(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        read_tokens(write(tmp_path / "t", text))
    # A secret with a typing error is still one.
    assert "0123456789" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o601])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UsageError, match="others may read it"):
        read_tokens(write(tmp_path / "t", GOOD, mode))


def test_what_cannot_be_read_as_a_token_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_tokens(str(tmp_path / "none"))
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UsageError, match="not a file"):
        read_tokens(str(tmp_path / "pipe"))


@pytest.mark.parametrize(
    "typed",
    [
        {"linger": "0.5"},
        {"linger": "nan"},
        {"linger": "x"},
        {"top": "-1"},
        {"cgroups": "many"},
        {"allow_host": ["a/b"]},
        {"tls_key": "/k"},
        {"tls_cert": "/c", "listen": "/run/x.sock"},
    ],
)
def test_wrong_options_are_usage_errors(typed: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        resolve(typed)


def test_defaults() -> None:
    options = resolve({})
    assert str(options.listen) == "127.0.0.1:9435"
    assert options.linger == 300


def refused(options: ServeOptions) -> str:
    with pytest.raises(ProbeError) as caught:
        sockets.open_socket(options, USER, USER)
    return str(caught.value)


def test_other_machines_need_a_token_and_encryption(tmp_path: Path) -> None:
    everywhere, tokens = Listen("0.0.0.0", 0), (Token("read", "x" * 16),)
    assert "--token-file" in refused(ServeOptions(listen=everywhere))
    # A token that is sent in clear is nobody's secret.
    assert "--tls-cert" in refused(ServeOptions(listen=everywhere, tokens=tokens))
    assert "--token-file" in refused(ServeOptions(listen=everywhere, insecure=True))
    sockets.open_socket(
        ServeOptions(listen=everywhere, tokens=tokens, insecure=True), USER, USER
    ).close()
    with_tls = ServeOptions(listen=everywhere, tokens=tokens, certificate="/c")
    sockets.open_socket(with_tls, USER, USER).close()


def test_an_address_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.listen()
        why = refused(ServeOptions(listen=Listen(port=other.getsockname()[1])))
    assert "cannot listen on 127.0.0.1:" in why
    assert "--listen" in why
    assert "no-such-host.invalid" in refused(ServeOptions(listen=Listen("no-such-host.invalid")))


def test_a_unix_socket_is_for_its_owner_and_group(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    sock = sockets.open_socket(ServeOptions(listen=Listen(path=path)), USER, USER)
    status = os.stat(path)
    assert stat.S_IMODE(status.st_mode) == 0o660
    # Whatever else runs as nobody has no business here.
    assert status.st_uid == os.geteuid()
    why = refused(ServeOptions(listen=Listen(path=path)))
    assert "somebody does already" in why
    sock.close()
    # What the last one left is replaced.
    sockets.open_socket(ServeOptions(listen=Listen(path=path)), USER, USER).close()
    assert os.path.exists(path)


def test_a_file_is_never_replaced_by_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert "exists already" in refused(ServeOptions(listen=Listen(path=str(path))))
    assert path.read_text() == "data"
    missing = Listen(path=str(tmp_path / "no" / "s"))
    assert "No such file" in refused(ServeOptions(listen=missing))


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "c", "not PEM")
    for name in (path, str(tmp_path / "none")):
        with pytest.raises(UsageError, match="cannot be used"):
            sockets.tls(ServeOptions(certificate=name))
    assert sockets.tls(ServeOptions()) is None


@pytest.mark.parametrize("sudo", [None, "0"])
def test_a_service_of_root_becomes_nobody(
    monkeypatch: pytest.MonkeyPatch, sudo: str | None
) -> None:
    for name in ("SUDO_UID", "SUDO_GID"):
        monkeypatch.delenv(name, raising=False)
        if sudo is not None:
            monkeypatch.setenv(name, sudo)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert service_user(None).uid == NOBODY
    assert service_user("root").uid == 0
    monkeypatch.setenv("SUDO_UID", "4711")
    monkeypatch.setenv("SUDO_GID", "4712")
    user = service_user(None)
    assert (user.uid, user.gid) == (4711, 4712)
