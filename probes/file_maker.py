# SPDX-License-Identifier: Apache-2.0
"""Files of root's for a process that is root no more: another one makes them, by a narrow rule.

Who calls probetop as root gets a dashboard of the user nobody, who owns nothing. What it exports
and records is made by a process that keeps root's rights, and makes only new files (or the one
that the command line names) in few folders. For all other users nothing of this is needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pwd
import re
import resource
import signal
import socket
import stat
import threading
from dataclasses import dataclass
from typing import NoReturn

from probes import process_start
from probes.base import ProbeError
from probes.files import printable, unusable

PR_SET_PDEATHSIG = 1
ENDINGS = (".html", ".json", ".svg", ".ptrec")
SCRATCH = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders below which anybody may make files."""
LONGEST_REQUEST = 8192
LARGEST_FILE = 64 << 20
MOST_FILES = 100
"""How many files one dashboard may have made: a taken-over one shall not fill folders."""
LARGEST_RECORDING = 16 << 30
"""Bytes, weeks of an ordinary machine."""
CREATE, WRITE, CHECK, STOP, FORCE = b"c", b"w", b"k", b"z", b"!"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]*")
_INSTEAD = "type a name alone, or /tmp/NAME"
FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
SECONDS = 20.0
"""How long a file may take to be made; a network's file system may be slow."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which files may be made: the one at `path`, or those that a dashboard is told to make.

    `force` lets the file at `path` replace another one.
    """

    path: str | None = None
    force: bool = False


class Maker:
    """The side without privileges."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

    def create(self, path: str, force: bool) -> int:
        """A descriptor of a new, empty file; raises ProbeError."""
        found = self._ask(CREATE, path, force)
        if not found:
            raise ProbeError(f"cannot create {path}: no answer", "try again")
        return found[0]

    def write(self, path: str, data: bytes, force: bool) -> None:
        """Make a file with this content, whole or not at all; raises ProbeError."""
        content = os.memfd_create("probetop-file")
        try:
            with open(content, "wb", closefd=False) as file:
                file.write(data)
            self._ask(WRITE, path, force, [content])
        finally:
            os.close(content)

    def check(self, path: str) -> None:
        """Raises ProbeError if no file can be made there."""
        self._ask(CHECK, path, False)

    def stop(self) -> bool:
        """Stop the job of which this process is a part, and go on with it; False if it cannot."""
        if not self._lock.acquire(timeout=1):
            return False
        try:
            # However long we are stopped, the answer is there.
            self._sock.settimeout(None)
            self._sock.send(STOP)
            return self._sock.recv(LONGEST_REQUEST) == b"ok"
        except OSError:
            return False
        finally:
            self._sock.settimeout(SECONDS)
            self._lock.release()

    def _ask(self, what: bytes, path: str, force: bool, fds: list[int] | None = None) -> list[int]:
        request = what + (FORCE if force else b" ") + os.fsencode(path)
        with self._lock:
            try:
                socket.send_fds(self._sock, [request[:LONGEST_REQUEST]], fds or [])
                data, found, _, _ = socket.recv_fds(self._sock, LONGEST_REQUEST, 1)
            except OSError as error:
                # A late answer must not be taken for that to the next request.
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)
                said = error.strerror or "no answer in time"
                data, found = f"cannot create files ({said})\0".encode(), []
        if data == b"ok":
            return found
        why, _, fix = data.decode("utf-8", "replace").partition("\0")
        raise ProbeError(why or "the process that makes files has ended", fix or "start it again")


_maker: Maker | None = None


def current() -> Maker | None:
    """Who makes this process's files; None if it does so itself."""
    return _maker


def stop_job() -> None:
    """Stop this process and all of its job, as ctrl+Z does, until the shell has them go on."""
    if _maker is None or not _maker.stop():
        os.killpg(os.getpgrp(), signal.SIGTSTP)


def start(rule: Rule) -> None:
    """Start the process with root's rights, and have it make this one's files from now on.

    It ends with this process. Call it before any other process or thread is started.
    """
    global _maker
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        _run(theirs, rule)
    theirs.close()
    ours.settimeout(SECONDS)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_RECORDING, LARGEST_RECORDING))
    process_start.keep_from_broker(ours.fileno())
    _maker = Maker(ours)


def _run(sock: socket.socket, rule: Rule) -> NoReturn:
    """The process with root's rights, from fork to end."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGINT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        process_start.keep_privileges()
        place = Place(rule)
        while True:
            data, fds, flags, _ = socket.recv_fds(sock, LONGEST_REQUEST + 1, 1)
            if not data:
                break
            cut = bool(flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC))
            answer, found = _answer(place, b"" if cut else data, fds)
            socket.send_fds(sock, [answer], found)
            for fd in (*fds, *found):
                os.close(fd)
    finally:
        os._exit(0)


def _answer(place: Place, request: bytes, fds: list[int]) -> tuple[bytes, list[int]]:
    """What is sent back for any bytes whatever, and a descriptor for those that ask for one."""
    what, force, path = request[:1], request[1:2] == FORCE, os.fsdecode(request[2:])
    name = path
    try:
        if request == STOP and place.of_dashboard:
            # Other processes of the job may be root's, as a script is that called probetop.
            os.killpg(os.getpgrp(), signal.SIGTSTP)
            return b"ok", []
        if what not in (CREATE, WRITE, CHECK) or len(fds) != (what == WRITE):
            raise ProbeError("this cannot be asked for here", "report it")
        name = place.enter(path, force)
        if what == CREATE:
            from probes.recording import create_file

            found = create_file(name, force=force)
            place.left -= 1
            return b"ok", [found]
        if what == WRITE:
            write(name, _content(fds[0]), force)
            place.left -= 1
        elif not os.access(os.path.dirname(name) or ".", os.W_OK | os.X_OK):
            raise ProbeError(f"{path}: its folder cannot be written to", "choose another folder")
        return b"ok", []
    except ProbeError as error:
        # Errors name the file as it was asked for.
        why = error.why.replace(f" {name}:", f" {path}:", 1)
        return f"{why}\0{error.fix}".encode("utf-8", "replace")[:LONGEST_REQUEST], []
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        return f"cannot create it: {said}\0choose another path".encode("utf-8", "replace"), []


def _content(fd: int) -> bytes:
    """What a file in memory holds; one of any other kind could make us wait for ever."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
        raise ProbeError("this cannot be asked for here", "report it")
    # Raises OSError for other file systems.
    fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    return os.pread(fd, status.st_size, 0)


class Place:
    """The folders of a Rule; the process stands in the one where it is to make a file."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self.of_dashboard = rule.path is None
        self.left = MOST_FILES
        self._start = os.open(".", FOLDER)
        self._known = {os.path.realpath("."): self._start}
        with contextlib.suppress(OSError, KeyError):
            home = os.path.realpath(pwd.getpwuid(os.geteuid()).pw_dir)
            self._known.setdefault(home, os.open(home, FOLDER))

    def enter(self, path: str, force: bool) -> str:
        """Go to where a file may be made; its path from there. Raises ProbeError or OSError."""
        os.fchdir(self._start)
        if self.left <= 0:
            raise ProbeError(f"{MOST_FILES} files were made, the most", "start probetop again")
        folder, name = os.path.split(path)
        if self._rule.path is not None:
            if path != self._rule.path or (force and not self._rule.force):
                raise ProbeError(f"{path}: this file was not asked for", "report it")
            return path
        # A name may stand in a command line of root's, by a wildcard: it is no option there.
        if force or not _NAME.fullmatch(name) or not name.lower().endswith(ENDINGS):
            raise ProbeError(f"cannot create {path}", f"a name that ends in {', '.join(ENDINGS)}")
        # Programs read files of names that they know, such as package.json.
        if name.lower().endswith(".json") and not name.startswith("probetop"):
            raise ProbeError(f"cannot create {path} as root", f"type probetop-{name}")
        real = os.path.realpath(folder) if folder else ""
        if real in self._known:
            os.fchdir(self._known[real])
        elif real:
            _enter_scratch(real)
        return name


def _enter_scratch(real: str) -> None:
    """Go to a folder below those where anybody may make files. Raises ProbeError or OSError.

    Each part is opened without following links: who changes it meanwhile changes nothing.
    """
    top = next((top for top in SCRATCH if f"{real}/".startswith(f"{top}/")), None)
    if top is None:
        raise ProbeError(f"{printable(real)}: as root, no file is made there", _INSTEAD)
    os.chdir("/")
    for part in filter(None, top.split("/")):
        _step(part)
    for part in filter(None, real[len(top) :].split("/")):
        if not _step(part) & stat.S_IXOTH:
            raise ProbeError(f"{printable(real)}: a private folder", _INSTEAD)


def _step(part: str) -> int:
    """Go to a folder in the present one; its mode. Raises OSError."""
    fd = os.open(part, FOLDER | os.O_NOFOLLOW)
    try:
        os.fchdir(fd)
        return os.fstat(fd).st_mode
    finally:
        os.close(fd)


def write(path: str, data: bytes, force: bool) -> None:
    """Make a file with this content, readable for its owner only.

    See `probes.recording.create_file` for what is never overwritten. What `force` replaces is
    there until the new one is whole. Raises ProbeError; then no part of the new file stays.
    """
    if _maker is not None:
        _maker.write(path, data, force)
    elif force and _is_file(path):
        folder, name = os.path.split(path)
        part = os.path.join(folder, f".{name}.{os.getpid()}.part"[-255:])
        _write_new(part, data, path)
        try:
            os.replace(part, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise unusable("replace", path, error) from error
    else:
        _write_new(path, data, path)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _write_new(path: str, data: bytes, name: str) -> None:
    """Create and fill `path`, or leave nothing; errors speak of `name`."""
    from probes.recording import create_file

    fd = create_file(path)
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
        # Some file systems tell only now that the disk is full.
        os.fsync(fd)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        if isinstance(error, OSError):
            raise unusable("write to", name, error) from error
        raise
    finally:
        os.close(fd)
