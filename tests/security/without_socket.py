# SPDX-License-Identifier: Apache-2.0
"""Attacks by somebody with an account on the machine, and by the confined process itself."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from probes.bpf import bpf_syscall
from tests.kernel.serving import Agent
from tests.security.attack import Attack
from tests.security.prey import Prey

TIOCSTI, TIOCLINUX = 0x5412, 0x541C
CLONE_NEWUSER = 0x10000000


class Served(NamedTuple):
    """An agent of root's on TCP, one whose socket everybody may open, and what they guard."""

    tcp: tuple[str, int]
    token_file: str
    prey: Prey


@contextmanager
def served(prey: Prey) -> Iterator[Served]:
    """`serve` as root calls it, without options."""
    with Agent() as agent:
        token = next(line for line in agent.said if "curl -H @" in line)
        path = token.partition("curl -H @")[2].split()[0]
        yield Served(("127.0.0.1", int(agent.where.rpartition(":")[2])), path, prey)
        assert agent.ask("GET", "/healthz") is not None, "the agent answers no more"


def ask(agent: Served, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """Status and text of an answer."""
    client = http.client.HTTPConnection(*agent.tcp, timeout=30)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    more = {"Content-Type": "application/json"} if body is not None else {}
    client.request(method, path, data, {**more, **headers})
    answer = client.getresponse()
    text = answer.read(1 << 20).decode("utf-8", "replace")
    client.close()
    return answer.status, text


def control_without_a_token(agent: Served) -> str:
    """Everything that changes something, and everything that tells more than /proc does."""
    spec = {"spec": f"uprobe:{agent.prey.guard}:permitted+1"}
    for method, path, body in (
        ("PUT", "/v1/probes/latency", {"on": False}),
        ("PUT", "/v1/probes/latency", {"options": {"targets": ["runq"]}}),
        ("PUT", "/v1/filters", {"pid": 1}),
        ("PUT", "/v1/interval", {"seconds": 0.05}),
        ("POST", "/v1/latency/targets", spec),
        ("POST", "/v1/runs", {"seconds": 1, "targets": [spec["spec"]]}),
        ("DELETE", "/v1/latency/targets", spec),
        ("GET", "/v1/search?q=/root/", None),
        ("GET", "/v1/snapshot", None),
        ("POST", "/v1/doctor", None),
    ):
        for token in (
            {},
            {"Authorization": "Bearer " + "a" * 40},
            {"Authorization": "Bearer \xff"},
        ):
            status, text = ask(agent, method, path, body, **token)
            if status < 400:
                return f"{method} {path} gave {status}: {text[:100]}"
    return ""


def the_token(agent: Served) -> str:
    """The file that holds it, and its folder."""
    with suppress(OSError):
        return f"it can be read: {Path(agent.token_file).read_text()[:9]}"
    folder = os.path.dirname(agent.token_file)
    return _denied(
        ("renaming it", lambda: os.rename(agent.token_file, agent.token_file + "x")),
        ("renaming its folder", lambda: os.rename(folder, folder + "x")),
        ("a file beside it", lambda: Path(folder, "mine").touch()),
    )


def half_sent_heads(agent: Served) -> str:
    """More connections than there is room for, each with half a head."""
    held = []
    for _ in range(300):
        with suppress(OSError):
            sock = socket.create_connection(agent.tcp, 5)
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
            held.append(sock)
    try:
        status, text = ask(agent, "GET", "/healthz")
    except OSError as error:
        return f"nobody else is heard: {error}"
    finally:
        for sock in held:
            sock.close()
    return "" if status == 200 else f"{status}: {text[:100]}"


def bodies(agent: Served) -> str:
    """Bodies of all kinds, and heads that are none: an answer, never the end."""
    for body in (b"[" * 50_000, b'{"options":{"targets":5}}', b"\xff", b"9" * 9000, b'"\\ud800"',
                 b"NaN", b"{}" * 90_000):  # fmt: skip
        for path in ("/v1/probes/latency", "/v1/runs", "/v1/filters"):
            with suppress(ConnectionError, http.client.HTTPException):
                status, text = ask(agent, "PUT", path, body)
                if status >= 500 or status < 400:
                    return f"{path} gave {status}: {text[:80]}"
    for raw in (b"\0" * 999, b"GET " + b"/" * 99_999, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000):
        with suppress(OSError), socket.create_connection(agent.tcp, 5) as sock:
            sock.sendall(raw)
            sock.settimeout(5)
            sock.recv(100)
    status, _ = ask(agent, "GET", "/healthz")
    return "" if status == 200 else f"it answers {status}"


def names_of_processes(agent: Served) -> str:
    """A process whose name is no UTF-8, has control characters and looks like markup."""
    libc = ctypes.CDLL(None)
    for name in (b"\xed\xa0\x80", b"\x1b[2J\x07", b"<b>\"'&{}", b"\xe2\x80\xaeevil", b"a\nb 1"):
        libc.prctl(15, name, 0, 0, 0)
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            os.getppid()
    time.sleep(1.2)
    for path in ("/metrics", "/v1/frame", "/healthz"):
        status, text = ask(agent, "GET", path)
        if status >= 500:
            return f"{path} gave {status}: {text[:100]}"
        odd = [c for c in text if not c.isprintable() and c != "\n"]
        if odd:
            return f"{path} has {odd[:3]}"
    return ""


# -- the unprivileged side itself, as `privileges.drop` leaves it -----------------------------


def _denied(*attempts: tuple[str, Callable[[], Any]]) -> str:
    for name, attempt in attempts:
        try:
            attempt()
        except OSError:
            continue
        return f"{name} was allowed"
    return ""


def _syscall(number: int, *args: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(arg) for arg in args]
    if libc.syscall(ctypes.c_long(number), *words) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def confined_system_calls(prey: Prey) -> str:
    """What a process needs to gain rights, or to reach others."""
    unshare, ptrace = (272, 101) if os.uname().machine == "x86_64" else (97, 117)
    return _denied(
        ("bpf", lambda: bpf_syscall.map_create(bpf_syscall.MAP_ARRAY, 4, 8, 1)),
        (
            "perf_event_open",
            lambda: bpf_syscall.perf_event_open(bpf_syscall.PERF_SOFTWARE, 0, pid=0),
        ),
        ("execve", lambda: os.execv(str(prey.guard), ["guard"])),
        ("unshare", lambda: _syscall(unshare, CLONE_NEWUSER)),
        ("ptrace", lambda: _syscall(ptrace, 16, os.getppid(), 0, 0)),
        ("kill", lambda: os.kill(os.getppid(), 0)),
    )


def confined_files(prey: Prey) -> str:
    """Files of root's, and writing at all."""
    return _denied(
        ("reading /etc/shadow", lambda: Path("/etc/shadow").read_bytes()),
        ("writing to /tmp", lambda: Path("/tmp/probetop-attack").write_text("x")),
        ("writing to our own folder", lambda: (prey.hostile / "x").write_text("x")),
        (
            "writing to /proc/self/oom_score_adj",
            lambda: Path("/proc/self/oom_score_adj").write_text("5"),
        ),
    )


def confined_terminal(prey: Prey) -> str:
    """Keys pushed into a terminal that root reads from: refused before the kernel is asked."""
    for name, number in (
        ("TIOCSTI", TIOCSTI),
        ("TIOCLINUX", TIOCLINUX),
        ("high", 1 << 32 | TIOCSTI),
    ):
        try:
            if number >> 32:
                _syscall(16 if os.uname().machine == "x86_64" else 29, prey.terminal, number, 0)
            else:
                fcntl.ioctl(prey.terminal, number, b"x")
        except OSError as error:
            if error.errno == errno.EPERM:
                continue
        return f"{name} reached the kernel"
    return ""


ATTACKS = [
    Attack(work.__name__.replace("_", " "), work)
    for work in (confined_system_calls, confined_files, confined_terminal)
]
AGENT_ATTACKS = [
    Attack(work.__name__.replace("_", " "), work)
    for work in (control_without_a_token, the_token, half_sent_heads, bodies, names_of_processes)
]
