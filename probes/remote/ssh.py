# SPDX-License-Identifier: Apache-2.0
"""A link by ssh: the far side's `probetop stream --frames`, and nothing to open there."""

from __future__ import annotations

import json
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, NamedTuple
from urllib.parse import SplitResult

from probes.core.errors import ProbeError

AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec "$@"; else exec sudo -n "$@"; fi'
"""What the far shell runs unless it is told otherwise: root needs no sudo, and may have none."""
OPTIONS = (
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "RemoteCommand=none",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
)
"""What a user may have set for a shell there: a command of his own would be refused with ours."""
NOT_FOUND, SSH_FAILED = 127, 255
END_SECONDS = 0.15


class SshServer(NamedTuple):
    """Where ssh goes to, as it takes it."""

    host: str
    user: str | None = None
    port: int | None = None


def place(url: SplitResult) -> SshServer:
    """What ssh://[user@]host[:port] names; raises ProbeError if it names none."""
    fix = "write ssh://[user@]host[:port]"
    try:
        port = url.port
    except ValueError:
        raise ProbeError("not a port", fix) from None
    host, user = _as_typed(url), url.username
    if not host or url.path not in ("", "/") or url.query or url.password:
        raise ProbeError("not a host", fix)
    for word in (host, user or ""):
        # ssh would take it for an option; others act on the far shell of jump hosts.
        more = "%" if ":" in host else ""
        if word.startswith("-") or not all(c.isalnum() or c in f".-_:@+{more}" for c in word):
            raise ProbeError("not a host", fix)
    return SshServer(host, user, port)


def _as_typed(url: SplitResult) -> str:
    """The host in its own letters: names in ssh's configuration may have capitals."""
    typed = url.netloc.rpartition("@")[2]
    start = typed.lower().find(url.hostname or "")
    return typed[start : start + len(url.hostname or "")] if start >= 0 else ""


class SshTransport:
    """Runs the system's ssh, with its configuration, keys and known hosts."""

    remembers = False

    def __init__(
        self, target: str, where: SshServer, arguments: Sequence[str], command: str | None = None
    ) -> None:
        """`arguments` are options of `stream`, `command` what stands for probetop there."""
        self.target = target
        self._where = where
        words = shlex.split(command) if command else ["sh", "-c", AS_ROOT, "sh", "probetop"]
        self._far = shlex.join([*words, "stream", "--frames", *arguments])

    def command(self, *, ask: bool) -> list[str]:
        """The command line of ssh."""
        options = [*OPTIONS, *([] if ask else ["BatchMode=yes"])]
        port = ["-p", str(self._where.port)] if self._where.port else []
        user = ["-l", self._where.user] if self._where.user else []
        settings = [word for option in options for word in ("-o", option)]
        return ["ssh", "-T", *settings, *port, *user, "--", self._where.host, self._far]

    def connect(self, answered: Callable[[Mapping[str, Any]], None], *, ask: bool) -> SshConnection:
        """Start ssh; raises ProbeError if there is none. Whether it gets through shows later."""
        try:
            process = subprocess.Popen(
                self.command(ask=ask),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                # Without a terminal it cannot ask, or stop with the screen.
                start_new_session=not ask,
            )
        except FileNotFoundError:
            raise ProbeError("ssh is not installed here", "install openssh-client") from None
        except OSError as error:
            raise ProbeError(f"ssh cannot be started ({error.strerror})", "try again") from error
        return SshConnection(process, self.target)


class SshConnection:
    """A running ssh."""

    def __init__(self, process: subprocess.Popen[bytes], target: str) -> None:
        self._process = process
        self._target = target
        self._in, self._out, self._err = (_pipe(p) for p in _pipes(process))
        self._said: deque[bytes] = deque(maxlen=20)
        # What ssh has started may hold its pipes for longer than it lives.
        self._over = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        os.set_blocking(self._in.fileno(), False)
        for one in (self._out, self._err, self._over):
            self._selector.register(one, selectors.EVENT_READ)

    def receive(self, seconds: float) -> bytes:
        """Bytes of the Frames; what it says on standard error is kept for `why`."""
        end = time.monotonic() + seconds
        while True:
            ready = self._selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError
            files = [key.fileobj for key, _ in ready]
            if self._over in files:
                return b""
            if self._err in files:
                self._listen()
            if self._out in files:
                return os.read(self._out.fileno(), 1 << 18)

    def _listen(self) -> None:
        data = os.read(self._err.fileno(), 4096)
        if data:
            self._said.extend(data.splitlines())
        else:
            self._selector.unregister(self._err)

    def send(self, command: Mapping[str, Any]) -> None:
        """One line; a link that takes no more is broken."""
        line = json.dumps(command).encode("ascii") + b"\n"
        sent = os.write(self._in.fileno(), line)
        if sent != len(line):
            # Half a command, which what follows would only make worse.
            self._process.terminate()
            raise BlockingIOError(0, "it takes nothing")

    def why(self) -> ProbeError | None:
        """What ssh, or probetop over there, said last."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        status = self._process.poll()
        if status is None:
            return None
        while any(key.fileobj is self._err for key, _ in self._selector.select(0)):
            self._listen()
        said = self._last_line()
        if status == NOT_FOUND or said.endswith("command not found"):
            fix = "install it there, or say where it is: --remote-command 'sudo -n /PATH/probetop'"
            return ProbeError(f"{self._target}: probetop is not found there", fix)
        if said.startswith("sudo:"):
            fix = "attach as root, allow it in sudoers, or give --remote-command"
            return ProbeError(f"{self._target}: {said}", fix)
        if said.startswith("probetop: "):
            return ProbeError(f"{self._target}: {said.removeprefix('probetop: ')}")
        ended = f"ssh ended with status {status}"
        return ProbeError(f"{self._target}: {said or ended}", "see whether ssh gets through")

    def _last_line(self) -> str:
        texts = [line.decode("utf-8", "replace").strip() for line in self._said]
        texts = [text for text in texts if text]
        return "".join(c if c.isprintable() else "?" for c in texts[-1])[:300] if texts else ""

    def hang_up(self) -> None:
        """The far side sees its input end; ssh itself is not waited for long."""
        os.eventfd_write(self._over, 1)
        with suppress(OSError):
            self._in.close()
        for seconds, end in ((END_SECONDS, signal.SIGTERM), (0.05, signal.SIGKILL)):
            try:
                self._process.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                self._process.send_signal(end)

    def close(self) -> None:
        """Let go of it."""
        self.hang_up()
        self._process.wait()
        self._selector.close()
        os.close(self._over)
        self._out.close()
        self._err.close()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes] | None, ...]:
    return process.stdin, process.stdout, process.stderr


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
