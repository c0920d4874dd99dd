# SPDX-License-Identifier: Apache-2.0
"""Files for a process that may write none: another one makes them, by a narrow rule.

What a dashboard exports and records is made by a process with the rights of the user whose files
they are, or with root's where the dashboard is nobody's. It makes new files of few kinds (or the
one that the command line names) and changes none that is there; root's only in few folders.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pwd
import re
import resource
import signal
import socket
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from probes.core.errors import ProbeError
from probes.host import content_file, privileges, process_start
from probes.host.files import new_file, printable, unusable
from probes.host.job_control import Job

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

    def __init__(self, sock: socket.socket, content: int, *, stops: bool = True) -> None:
        """`content` is a file of `new_content`, `stops` whether the other side stops the job."""
        self._sock = sock
        self._content = content
        self._stops = stops
        self._lock, self._filling = threading.Lock(), threading.Lock()

    def create(self, path: str, force: bool) -> int:
        """A descriptor of a new, empty file; raises ProbeError."""
        found = self._ask(CREATE, path, force)
        if not found:
            raise ProbeError(f"cannot create {path}: no answer", "try again")
        return found[0]

    def write(self, path: str, data: bytes, force: bool) -> None:
        """Make a file with this content, whole or not at all; raises ProbeError."""
        if len(data) > LARGEST_FILE:
            why = f"cannot create {printable(path)}: more than {LARGEST_FILE >> 20} MiB"
            raise ProbeError(why, "export another kind of file")
        with self._filling:
            try:
                content_file.fill(self._content, [data])
            except OSError as error:
                raise unusable("create", path, error) from error
            else:
                self._ask(WRITE, path, force)
            finally:
                content_file.empty(self._content)

    def check(self, path: str) -> None:
        """Raises ProbeError if no file can be made there."""
        self._ask(CHECK, path, False)

    def stop(self) -> bool:
        """Stop the job of which this process is a part, and go on with it; False if it cannot."""
        if not self._stops or not self._lock.acquire(timeout=1):
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

    def _ask(self, what: bytes, path: str, force: bool) -> list[int]:
        request = what + (FORCE if force else b" ") + os.fsencode(path)
        with self._lock:
            try:
                self._sock.send(request[:LONGEST_REQUEST])
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


def start(rule: Rule, user: privileges.User | None = None) -> None:
    """Start the process that makes this one's files from now on, with the rights of `user`.

    None stands for this process's own, root's. It ends with this process. Call it before any
    other process or thread is started. Raises ProbeError.
    """
    global _maker
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.getpid()
    bound_files(LARGEST_RECORDING)
    try:
        content = new_content()
    except OSError as error:
        raise ProbeError(f"no file in memory can be made ({error.strerror})", "") from error
    watched = os.pidfd_open(pid)
    if os.fork() == 0:
        ours.close()
        _run(theirs, content, rule, user, Job(pid, watched))
    os.close(watched)
    theirs.close()
    ours.settimeout(SECONDS)
    process_start.keep_from_broker(ours.fileno())
    process_start.keep_from_broker(content)
    _maker = Maker(ours, content, stops=user is None)


def bound_files(most: int) -> None:
    """Have this process, and those that it starts, make no file longer than this, in bytes."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def new_content() -> int:
    """A file in memory for the content of files to be made; raises OSError."""
    return content_file.create("probetop-file", LARGEST_FILE)


def _run(
    sock: socket.socket, content: int, rule: Rule, user: privileges.User | None, job: Job
) -> NoReturn:
    """The process that makes files, from fork to end."""
    try:
        for number in (signal.SIGINT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        process_start.keep_privileges()
        if user is not None:
            privileges.drop(user)
        # Changing the user forgets this.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # Whose rights are root's is held to root's folders, also without capabilities.
        place = RootsPlace(rule) if os.geteuid() == 0 else UsersPlace(rule)
        place.stops_job = place.stops_job and user is None
        place.stop = job.stop
        while True:
            job.wait(sock)
            # Descriptors that come along are not taken: such a message counts as cut.
            data, _, flags, _ = sock.recvmsg(LONGEST_REQUEST + 1)
            if not data:
                break
            cut = bool(flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC))
            answer, found = _answer(place, content, b"" if cut else data)
            socket.send_fds(sock, [answer], found)
            for fd in found:
                os.close(fd)
    finally:
        os._exit(0)


def _answer(place: UsersPlace, content: int, request: bytes) -> tuple[bytes, list[int]]:
    """What is sent back for any bytes whatever, and a descriptor for those that ask for one."""
    what, force, path = request[:1], request[1:2] == FORCE, os.fsdecode(request[2:])
    name = path
    try:
        if request == STOP and place.stops_job:
            place.stop()
            return b"ok", []
        if what not in (CREATE, WRITE, CHECK):
            raise ProbeError("this cannot be asked for here", "report it")
        name = place.enter(path, force)
        if what == CREATE:
            found = new_file(name, force=force)
            place.left -= 1
            return b"ok", [found]
        if what == WRITE:
            write(name, content_file.read(content), force)
            place.left -= 1
        else:
            check_folder(name)
        return b"ok", []
    except ProbeError as error:
        # Errors name the file as it was asked for.
        return _said(ProbeError(error.why.replace(f" {name}:", f" {path}:", 1), error.fix)), []
    except (OSError, ValueError) as error:
        return _said(unusable("create", path, error)), []


def _said(error: ProbeError) -> bytes:
    """An answer."""
    return f"{error.why}\0{error.fix}".encode("utf-8", "replace")[:LONGEST_REQUEST]


class UsersPlace:
    """Wherever a user may make files, for a process that has this user's rights and no more."""

    stops_job = False

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self.left = MOST_FILES
        self.stop: Callable[[], None] = lambda: os.killpg(os.getpgrp(), signal.SIGTSTP)

    def enter(self, path: str, force: bool) -> str:
        """Go to where a file may be made; its path from there. Raises ProbeError or OSError."""
        self._check(path, force)
        return path

    def _check(self, path: str, force: bool) -> None:
        """Raises ProbeError for a name that is not to be made, whatever there is."""
        if self.left <= 0:
            raise ProbeError(f"{MOST_FILES} files were made, the most", "start probetop again")
        if self._rule.path is not None:
            if path != self._rule.path or (force and not self._rule.force):
                raise ProbeError(f"{path}: this file was not asked for", "report it")
            return
        name = os.path.basename(path)
        # A name may stand in a command line of somebody's, by a wildcard: it is no option there.
        if force or not _NAME.fullmatch(name) or not name.lower().endswith(ENDINGS):
            raise ProbeError(f"cannot create {path}", f"a name that ends in {', '.join(ENDINGS)}")
        # Programs read files of names that they know, such as package.json.
        if name.lower().endswith(".json") and not name.startswith("probetop"):
            raise ProbeError(f"cannot create {path}", f"type probetop-{name}")


class RootsPlace(UsersPlace):
    """The folders where root's files are made; the process stands in the one at hand."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self.stops_job = rule.path is None
        self._start = os.open(".", FOLDER)
        self._begun = os.path.realpath(".")
        self._known = {self._begun: self._start}
        with contextlib.suppress(OSError, KeyError):
            home = pwd.getpwuid(os.geteuid()).pw_dir
            opened = os.open(home, FOLDER)
            for known in (os.path.normpath(home), os.path.realpath(home)):
                self._known.setdefault(known, opened)

    def enter(self, path: str, force: bool) -> str:
        os.fchdir(self._start)
        self._check(path, force)
        if self._rule.path is not None:
            return path
        folder, name = os.path.split(path)
        # By its text alone: whoever asks learns nothing of what is there, or where links lead.
        named = os.path.normpath(os.path.join(self._begun, folder)).replace("//", "/", 1)
        if named in self._known:
            os.fchdir(self._known[named])
        else:
            _enter_scratch(named)
        return name


def check_folder(path: str) -> None:
    """Raises OSError or ValueError if no file can be made at a path."""
    folder = os.path.dirname(path) or "."
    os.stat(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _enter_scratch(named: str) -> None:
    """Go to a folder below those where anybody may make files. Raises ProbeError or OSError.

    Each part is opened without following links: who changes it meanwhile changes nothing.
    """
    top = next((top for top in SCRATCH if f"{named}/".startswith(f"{top}/")), None)
    if top is None:
        raise ProbeError(f"{printable(named)}: as root, no file is made there", _INSTEAD)
    os.chdir("/")
    for part in filter(None, top.split("/")):
        _step(part)
    for part in filter(None, named[len(top) :].split("/")):
        if not _step(part) & stat.S_IXOTH:
            raise ProbeError(f"{printable(named)}: a private folder", _INSTEAD)


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

    See `probes.host.files.new_file` for what is never overwritten. What `force` replaces is
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
    fd = new_file(path)
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
