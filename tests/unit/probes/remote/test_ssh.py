# SPDX-License-Identifier: Apache-2.0
"""The link by ssh: what is run here and there, and what is said when it cannot be."""

from __future__ import annotations

import shlex
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from probes.core.errors import ProbeError
from probes.remote.ssh import SshConnection, SshServer, SshTransport, place

FAR = SshServer("web-3")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("ssh://web-3", SshServer("web-3")),
        ("ssh://admin@web-3:2222/", SshServer("web-3", "admin", 2222)),
        ("ssh://root@[fe80::1]:22", SshServer("fe80::1", "root", 22)),
        ("ssh://Me@Web-DB:7", SshServer("Web-DB", "Me", 7)),
        ("ssh://[FE80::1%eth0]", SshServer("FE80::1%eth0")),
    ],
)
def test_places(url: str, found: SshServer) -> None:
    assert place(urlsplit(url)) == found


@pytest.mark.parametrize(
    "url",
    [
        "ssh://",
        "ssh://-oProxyCommand=reboot",
        "ssh://-l@web-3",
        "ssh://web-3:many",
        "ssh://web-3/etc",
        "ssh://user:secret@web-3",
        "ssh://web-3?x=1",
        "ssh://web%203",
        "ssh://$(reboot)",
        "ssh://a;reboot@web-3",
    ],
)
def test_what_is_no_place(url: str) -> None:
    with pytest.raises(ProbeError, match=r"not a (host|port)"):
        place(urlsplit(url))


def test_the_far_shell_gets_every_word_as_it_is() -> None:
    words = ["--comm=a b", "--function=uprobe:/x y:$(reboot)", "--user=;reboot"]
    far = SshTransport("ssh://web-3", FAR, words).command(ask=True)[-1]
    assert shlex.split(far)[3:] == ["sh", "probetop", "stream", "--frames", *words]
    named = SshTransport("ssh://web-3", FAR, words, "sudo -n '/opt/my probetop/run.sh'")
    assert shlex.split(named.command(ask=True)[-1])[:4] == [
        "sudo", "-n", "/opt/my probetop/run.sh", "stream",
    ]  # fmt: skip


def test_only_the_first_time_it_may_ask_for_a_password() -> None:
    transport = SshTransport("ssh://web-3", SshServer("web-3", "admin", 2222), [])
    first, later = transport.command(ask=True), transport.command(ask=False)
    assert "BatchMode=yes" in later
    assert "BatchMode=yes" not in first
    assert first[first.index("--") + 1] == "web-3"
    assert first[first.index("-p") + 1] == "2222"
    assert first[first.index("-l") + 1] == "admin"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh that runs the far command here, where `probetop` is a script of the test's."""
    (tmp_path / "ssh").write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    (tmp_path / "sudo").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    for name in ("ssh", "sudo"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def start(folder: Path, script: str | None) -> SshConnection:
    if script is not None:
        (folder / "probetop").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "probetop").chmod(0o755)
    return SshTransport("ssh://far", FAR, []).connect(lambda answer: None, ask=False)


def test_bytes_come_and_commands_go(fake: Path) -> None:
    connection = start(fake, 'echo "$@"; while read line; do echo "<$line>"; done')
    assert connection.receive(10) == b"stream --frames\n"
    connection.send({"id": 1, "op": "toggle"})
    assert connection.receive(10) == b'<{"id": 1, "op": "toggle"}>\n'
    with pytest.raises(TimeoutError):
        connection.receive(0.05)
    connection.close()


@pytest.mark.parametrize(
    ("script", "why", "fix"),
    [
        (None, "probetop is not found there", "--remote-command"),
        ("exit 127", "probetop is not found there", "--remote-command"),
        ("echo 'sudo: a password is required' >&2; exit 1", "sudo: a password", "sudoers"),
        ("echo 'probetop: PID 7: no such process' >&2; exit 2", "PID 7: no such process", ""),
        ("echo 'ssh: no route' >&2; exit 255", "ssh: no route", "gets through"),
        ("printf 'a\\033[31mb\\n' >&2; exit 255", "a?[31mb", "gets through"),
        ("exit 3", "ssh ended with status 3", "gets through"),
    ],
)
def test_why_it_ended(fake: Path, script: str | None, why: str, fix: str) -> None:
    connection = start(fake, script)
    assert connection.receive(10) == b""
    error = connection.why()
    connection.close()
    assert error is not None
    assert error.why.startswith("ssh://far: ")
    assert why in error.why
    assert fix in error.fix


def test_hanging_up_ends_what_does_not_listen(fake: Path) -> None:
    connection = start(fake, "trap '' TERM; echo up; for n in 1 2 3 4 5 6; do sleep 0.3; done")
    assert connection.receive(10) == b"up\n"
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(connection.receive(10)))
    thread.start()
    time.sleep(0.05)
    connection.hang_up()
    thread.join(10)
    assert got == [b""]
    connection.close()


def test_without_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProbeError, match="ssh is not installed"):
        SshTransport("ssh://far", FAR, []).connect(lambda answer: None, ask=True)
