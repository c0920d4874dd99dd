# SPDX-License-Identifier: Apache-2.0
"""Where `attach` goes to, and with which token."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from probes.host.privileges import User
from probes.remote.http import HttpTransport
from probes.remote.ssh import SshTransport
from tests import fuzzing
from tests.unit.agent import Served, eventually
from tui.agent import owner_token
from tui.commands.attach_targets import sources
from tui.settings.validators import UsageError


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(owner_token, "RUN", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def transport(target: str, **typed: Any) -> HttpTransport:
    (source,) = sources({"targets": [target], **typed})
    found = source._transport
    assert isinstance(found, HttpTransport)
    return found


def sent(target: str, **typed: Any) -> tuple[str, str | None]:
    """The address that is asked, and the token that is sent there."""
    found = transport(target, **typed)
    return found._address.host, found._headers.get("Authorization")


def test_the_token_of_ones_own_agent_is_found(run: Path) -> None:
    made = owner_token.create("127.0.0.1", 9435, User(os.geteuid(), os.getegid(), None))
    mine = f"Bearer {made.secret}"
    assert sent("http://127.0.0.1:9435") == ("127.0.0.1", mine)
    assert sent("http://127.0.0.1") == ("127.0.0.1", mine)
    # By name it could reach whoever listens on ::1.
    assert sent("http://localhost:9435") == ("127.0.0.1", mine)
    for other in ("http://[::1]:9435", "http://127.0.0.2:9435", "http://127.0.0.1:9436"):
        assert sent(other)[1] is None
    assert sent("http://web-3.example.org:9435")[1] is None
    # The file does as a token file, too, and a token that was given comes first.
    assert sent("http://127.0.0.1:1", token_file=made.path)[1] == mine
    given = run / "given"
    given.write_text("another-token-0123\n")
    given.chmod(0o600)
    assert sent("http://127.0.0.1", token_file=str(given))[1] == "Bearer another-token-0123"
    made.close()
    assert sent("http://127.0.0.1:9435")[1] is None


def test_a_token_goes_to_an_address_and_not_to_a_name(run: Path) -> None:
    given = run / "given"
    given.write_text("another-token-0123\n")
    given.chmod(0o600)
    with pytest.raises(UsageError, match=r"localhost is a name.*127\.0\.0\.1"):
        sent("http://localhost", token_file=str(given))
    assert sent("http://[::1]", token_file=str(given))[0] == "::1"


def test_whoever_attaches_with_it_controls(run: Path) -> None:
    with Served() as served:
        host, port = served.address
        name = run / f"probetop-{os.geteuid()}"
        name.mkdir(mode=0o700)
        path = name / owner_token.file_name(host, port)
        path.write_text("Authorization: Bearer own-own-own-own-own-own\n")
        path.chmod(0o600)
        (source,) = sources({"targets": [f"http://{host}:{port}"]})
        source.open()
        source.toggle("pmc", False)
        refused: list[str] = []
        source.refused = refused.append
        wish = ("toggle", "pmc", False)
        eventually("it is carried out", lambda: wish in served.source.commands or refused)
        assert refused == []
        source.stop()


def test_a_token_file_is_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(
            UsageError, match=r"not a file|a directory|others may read it|one token"
        ):
            transport("http://127.0.0.1", token_file=str(path))


PIECES = (
    "ssh://", "http://", "SSH://", "unix:", "unix:/", "-", "--", "-oProxyCommand=x", "a", "web-3",
    "@", ":", "[", "]", "[::1]", "%", "%0a", "%eth0", "/", "?", "#", "22", "99999", "\n", "\t", " ",
    "\0", "\x1b", "$(x)", ";", "`", "'", "\u2212", "\uff0d", "\u0660", "é", "\u202e", "..",
    "\udcff",
)  # fmt: skip


def test_no_target_becomes_an_option_of_ssh() -> None:
    dice = random.Random(17)
    places = 0
    for _ in range(fuzzing.inputs()):
        first = dice.choice(PIECES[:5]) if dice.random() < 0.8 else ""
        target = first + "".join(dice.choices(PIECES, k=dice.randrange(1, 7)))
        try:
            (source,) = sources({"targets": [target]})
        except UsageError as error:
            assert error.why.isprintable(), target  # noqa: PT017
            continue
        transport = source._transport
        if isinstance(transport, SshTransport):
            places += 1
            words = transport.command(ask=False)
            at = words.index("--")
            assert len(words) == at + 3, target
            named = [words[words.index("-l") + 1]] if "-l" in words[:at] else []
            for word in (words[at + 1], *named):
                assert not word.startswith("-"), target
                assert all(c.isalnum() or c in ".-_:@+%" for c in word), target
    assert places > fuzzing.inputs() // 200
