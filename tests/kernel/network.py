# SPDX-License-Identifier: Apache-2.0
"""Another machine's network on this one: a namespace, its sshd, and a slow way to it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import pytest

from tests.kernel.harness import eventually

DELAY = 0.2
"""Seconds that everything takes to the other side, and the same back."""
TOOLS = {"ip": "iproute2", "ssh-keygen": "openssh-client", "/usr/sbin/sshd": "openssh-server"}


class Namespace:
    """A network namespace with one link to ours, which can be cut."""

    def __init__(self) -> None:
        for tool, package in TOOLS.items():
            if shutil.which(tool) is None:
                pytest.skip(f"{tool} is missing: install the package {package}")
        self.name = f"probetop{os.getpid()}"
        self._near, self._far = f"pta{os.getpid()}", f"ptb{os.getpid()}"
        # Two test runs at once are two networks.
        third, fourth = divmod(os.getpid() % 16384, 64)
        near, self.far = (f"10.177.{third}.{4 * fourth + n}" for n in (1, 2))
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far)
        _run("ip", "link", "set", self._far, "netns", self.name)
        _run("ip", "addr", "add", f"{near}/30", "dev", self._near)
        _run("ip", "link", "set", self._near, "up")
        for words in (
            ("addr", "add", f"{self.far}/30", "dev", self._far),
            ("link", "set", self._far, "up"),
            ("link", "set", "lo", "up"),
        ):
            _run("ip", "-n", self.name, *words)

    def inside(self, *command: str) -> list[str]:
        """A command line that runs a command there: the network is another one, nothing else."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *command]

    def processes(self) -> set[int]:
        """Those that run there."""
        done = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True)
        return {int(word) for word in done.stdout.split()}

    def cut(self) -> None:
        """Nothing goes through any more, and nobody is told."""
        _run("ip", "link", "set", self._near, "down")

    def heal(self) -> None:
        """Everything goes through again."""
        _run("ip", "link", "set", self._near, "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # An sshd that was cut off waits for a quarter of an hour.
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _run("ip", "link", "del", self._near)
        _run("ip", "netns", "del", self.name)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Sshd:
    """An sshd in the namespace that lets root in by a key, and an `ssh` that has the key."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        for name in ("host", "id"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        (folder / "id.pub").rename(folder / "authorized")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = folder / "sshd_config"
        config.write_text(
            f"Port 22\nListenAddress {namespace.far}\nHostKey {folder}/host\nPidFile {folder}/pid\n"
            f"AuthorizedKeysFile {folder}/authorized\nUsePAM no\nStrictModes no\n"
        )
        (folder / "config").write_text(
            f"IdentityFile {folder}/id\nUserKnownHostsFile {folder}/known\n"
            "IdentitiesOnly yes\nStrictHostKeyChecking accept-new\n"
        )
        (folder / "bin").mkdir()
        wrapper = folder / "bin" / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {folder}/config "$@"\n')
        wrapper.chmod(0o755)
        self.path = f"{folder}/bin:{os.environ['PATH']}"
        self._process = subprocess.Popen(
            namespace.inside("/usr/sbin/sshd", "-D", "-e", "-f", str(config)),
            stderr=subprocess.DEVNULL,
        )
        eventually("sshd answers", lambda: _answers(namespace.far, 22))

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)


def _answers(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


class Relay:
    """Passes connections to `port` on to another address, and everything arrives DELAY later."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.passed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._to, 5)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        for one, other in ((near, far), (far, near)):
            queue: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
            threading.Thread(target=self._take, args=(one, queue), daemon=True).start()
            threading.Thread(target=self._give, args=(other, queue), daemon=True).start()

    def _take(self, sock: socket.socket, queue: SimpleQueue[tuple[float, bytes]]) -> None:
        data = b" "
        while data:
            try:
                data = sock.recv(65536)
            except OSError:
                data = b""
            self.passed += len(data)
            queue.put((time.monotonic() + DELAY, data))

    def _give(self, sock: socket.socket, queue: SimpleQueue[tuple[float, bytes]]) -> None:
        with suppress(OSError):
            while True:
                due, data = queue.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    sock.shutdown(socket.SHUT_WR)
                    return
                sock.sendall(data)

    def close(self) -> None:
        """Accept no more."""
        self._server.close()
