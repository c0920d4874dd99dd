# SPDX-License-Identifier: Apache-2.0
"""Starting the agent: where it listens, who may ask, and what it refuses to do."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.harness import eventually, status_of
from tests.kernel.serving import Agent, events
from tests.paths import ROOT

pytestmark = [pytest.mark.kernel, pytest.mark.concurrent]
QUICK = ("--budget", "0", "-i", "0.2", "--probes", "execs")
TOKEN = "control-control-control"


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "probetop.sock"
    with Agent("--listen", f"unix:{path}", *QUICK) as agent:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_uid == 0
        assert agent.get("/healthz") == {"ok": True}
    # Nobody could remove it; the next one replaces it.
    assert path.exists()
    with Agent("--listen", str(path), *QUICK) as agent:
        assert agent.get("/healthz") == {"ok": True}
        said = run("--listen", str(path))
        assert said[0] == 1
        assert "somebody does already" in said[1]


def test_a_unix_socket_is_its_users(tmp_path: Path) -> None:
    user = pwd.getpwnam("daemon")
    path = tmp_path / "probetop.sock"
    with Agent("--listen", f"unix:{path}", "--run-as", "daemon", *QUICK) as agent:
        assert (path.stat().st_uid, path.stat().st_gid) == (user.pw_uid, user.pw_gid)
        assert status_of(agent.pid)["Uid"].split() == [str(user.pw_uid)] * 4
        assert agent.where in agent.said[0]


def test_the_caller_of_sudo(tmp_path: Path) -> None:
    with Agent(*QUICK, SUDO_UID="12345", SUDO_GID="12346") as agent:
        assert status_of(agent.pid)["Uid"].split() == ["12345"] * 4
        assert status_of(agent.pid)["Gid"].split() == ["12346"] * 4
        path = Path(found[1]) if (found := re.search(r" -H @(\S+) ", agent.said[1])) else Path()
        status = path.stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (12345, 0o600)
        assert path.parent == Path("/run/probetop-12345")
        assert path.parent.stat().st_uid == 12345
        assert agent.ask("PUT", "/v1/probes/execs", {"on": False})["state"] == "off"
        agent.headers.clear()
        agent.ask("PUT", "/v1/probes/execs", {"on": True}, status=401)
        assert agent.end() == 0
    assert not path.exists()


def test_what_others_see_of_the_targets_that_it_was_started_with(tmp_path: Path) -> None:
    """Paths below private folders are not told, others are, also by a confined process."""
    maps = Path("/proc/self/maps").read_text()
    found = re.search(r" (/\S*/libc[.-]\S+)\n", maps)
    assert found
    public = f"uprobe:{found[1]}:getenv"
    private = f"uprobe:{shutil.copy(found[1], tmp_path)}:getenv"
    tmp_path.chmod(0o700)
    missing = f"uprobe:{tmp_path}/none:f"
    given = [word for spec in (public, private, missing) for word in ("-f", spec)]
    with Agent(*given, "--budget", "0", "-i", "0.2", "--probes", "latency") as agent:

        def states() -> dict[str, str]:
            targets = agent.get("/v1/latency/targets")["targets"]
            return {one["spec"]: one["state"] for one in targets if one["spec"] != "runq"}

        wanted = {public: "on", private: "on", missing: "failed"}
        eventually("all are traced, or failed", lambda: states() == wanted)
        agent.headers.clear()
        first = states()
        assert [*first.values()] == [*wanted.values()]
        assert [*first][:1] == [public]
        assert all(re.fullmatch(r"uprobe:private-\d", spec) for spec in [*first][1:])
        for path in ("/v1/latency/targets", "/v1/probes", "/metrics"):
            with agent.open("GET", path) as response:
                body = response.read().decode()
            assert tmp_path.name not in body, path
            assert "private-" in body, path
        assert found[1] in body


def certificate(directory: Path) -> tuple[str, str]:
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    name = ("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert))
    subprocess.run([*command.split(), *name], check=True, capture_output=True)
    key.chmod(0o600)
    return str(cert), str(key)


def test_tokens_and_encryption_for_other_machines(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    tokens = tmp_path / "tokens"
    tokens.write_text(f"control {TOKEN}\n")
    tokens.chmod(0o600)
    arguments = ("--listen", "0.0.0.0:0", "--token-file", str(tokens))
    with Agent(*arguments, "--tls-cert", cert, "--tls-key", key, *QUICK) as agent:
        assert agent.where.startswith("https://0.0.0.0:")
        assert "a token is needed" in agent.said[0]
        context = ssl.create_default_context(cafile=cert)
        port = int(agent.where.rpartition(":")[2])

        def ask(head: str) -> bytes:
            plain = socket.create_connection(("127.0.0.1", port), 20)
            with context.wrap_socket(plain, server_hostname="localhost") as sock:
                text = f"GET /v1/filters HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n"
                sock.sendall(text.encode())
                return b"".join(iter(lambda: sock.recv(65536), b""))

        assert ask("").startswith(b"HTTP/1.1 401 ")
        assert ask(f"Authorization: Bearer {TOKEN}\r\n").startswith(b"HTTP/1.1 200 ")
        # Who speaks no TLS gets nothing, and harms nobody.
        with socket.create_connection(("127.0.0.1", port), 20) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"HTTP" not in plain.recv(65536)
        assert ask(f"Authorization: Bearer {TOKEN}\r\n").startswith(b"HTTP/1.1 200 ")
        # Neither file can be read by what answers.
        assert agent.end() == 0
        assert len(agent.said) == 1, agent.said


def test_where_nobody_can_read_its_files(tmp_path: Path) -> None:
    """A checkout in a home of mode 0700: all that is needed later was read in time."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    for name in ("probes", "tui"):
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    with Agent(*QUICK, "-f", "runq", root=home) as agent:
        with agent.open("GET", "/v1/frames") as response:
            stream = events(response)
            next(stream)
            next(stream)
        for path in ("probes", "latency/targets", "filters", "interval", "search?q=malloc"):
            agent.get(f"/v1/{path}")
        assert b"<html" in agent.get("/v1/snapshot.html?seconds=1")
        agent.get("/v1/snapshot.json")
        assert agent.get("/v1/doctor")["ok"]
        agent.get("/openapi.json")
        agent.get("/v1/nothing", status=404)
        agent.ask("PUT", "/v1/filters", {"user": "root", "cgroup": "/"})
        agent.ask("POST", "/v1/latency/targets", {"spec": "uprobe:libc:malloc"}, status=201)
        agent.ask("PUT", "/v1/probes/pmc", {"on": True, "options": {"set": "cache"}})
        agent.ask("PUT", "/v1/probes/pmc", {"options": {"events": ["page-faults"]}})
        agent.ask("PUT", "/v1/probes/syscalls", {"on": True, "options": {"latency": True}})
        run = agent.ask("POST", "/v1/runs", {"seconds": 0.5}, status=201)
        path = f"/v1/runs/{run['id']}"
        eventually("it is done", lambda: agent.get(path)["state"] == "done")
        agent.get("/metrics")
        assert agent.end() == 0
        assert len(agent.said) == 2, agent.said


def test_a_service_manager_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0probetop-test-{os.getpid()}")
        manager.settimeout(20)
        path = f"@probetop-test-{os.getpid()}"
        with Agent(*QUICK, NOTIFY_SOCKET=path, WATCHDOG_USEC="400000") as agent:
            assert manager.recv(100) == b"READY=1"
            assert manager.recv(100) == b"WATCHDOG=1"
            assert manager.recv(100) == b"WATCHDOG=1"
            agent.end()
        word = b""
        while word != b"STOPPING=1":
            word = manager.recv(100)


def run(*arguments: str) -> tuple[int, str]:
    """What the command says when it does not start: its status and its one line."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tui.cli", "serve", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("probetop: ")
    assert done.stdout == ""
    return done.returncode, line


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--listen", "0.0.0.0:0"), 2, "--token-file"),
        (("--listen", "nowhere"), 2, "--listen nowhere"),
        (("--listen", ":9435"), 2, "not an address"),
        (("--listen", "192.0.2.1:0", "--token-file", "TOKENS", "--insecure"), 1, "cannot listen"),
        (("--token-file", "/nonexistent"), 2, "No such file"),
        (("--linger", "-5"), 2, "--linger '-5': out of range"),
        (("--tls-cert", "/nonexistent"), 2, "--tls-cert"),
        (("--run-as", "no-such-user"), 2, "no such user"),
        (("--seconds", "5"), 2, "--seconds"),
    ],
)
def test_what_it_refuses(
    tmp_path: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"control {TOKEN}\n")
    tokens.chmod(0o600)
    given = [str(tokens) if word == "TOKENS" else word for word in arguments]
    got, line = run(*given)
    assert (got, words in line) == (status, True), line


def test_without_privileges_it_says_so() -> None:
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable]
    done = subprocess.run(
        [*command, "-P", "-m", "tui.cli", "serve"],
        env={"PYTHONPATH": str(ROOT), "HOME": "/nonexistent"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "needs root" in done.stderr


def test_help_names_its_options() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tui.cli", "serve", "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    for flag in ("--listen", "--token-file", "--linger", "--no-args", "--interval", "--budget"):
        assert flag in done.stdout


AS_NOBODY = """
import http.client, json, sys
port, path = int(sys.argv[1]), sys.argv[2]
def ask(method, path, body=None):
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    return client.getresponse().status
try:
    token = open(path).read()
except PermissionError:
    token = None
wish = json.dumps({"spec": "uprobe:/usr/bin/su:main"})
print(json.dumps([
    token,
    ask("POST", "/v1/latency/targets", wish),
    ask("PUT", "/v1/probes/execs", '{"on": false}'),
    ask("GET", "/v1/search?q=/root/"),
    ask("GET", "/v1/doctor"),
    ask("GET", "/v1/filters"),
]))
"""


def test_another_user_has_nothing_attached() -> None:
    with Agent(*QUICK) as agent:
        agent.all_are("on", "execs")
        found = re.search(r" -H @(\S+) ", agent.said[1])
        assert found
        port = agent.where.rpartition(":")[2]
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable]
        done = subprocess.run(
            [*command, "-c", AS_NOBODY, port, found[1]],
            cwd="/", capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout) == [None, 401, 401, 401, 401, 200]
        specs = {target["spec"] for target in agent.get("/v1/latency/targets")["targets"]}
        assert not any("su" in spec for spec in specs - {"runq"})
        assert agent.states()["execs"] == "on"
        assert agent.end(signal.SIGKILL) == -signal.SIGKILL
    eventually("its token is gone", lambda: not Path(found[1]).exists())


def test_a_socket_is_not_made_where_another_user_could_replace_it(tmp_path: Path) -> None:
    directory = tmp_path / "theirs"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    status, line = run("--listen", f"unix:{directory}/s", *QUICK)
    assert (status, "others could put another socket" in line) == (2, True), line
