# SPDX-License-Identifier: Apache-2.0
"""How a command that reads the running kernel begins: what it takes over from its caller.

No descriptor but the three standard ones stays open, dangerous environment variables go, and the
limits of open files and locked memory are raised as far as possible.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import resource
import termios
from collections.abc import MutableMapping, Sequence
from contextlib import suppress

from probes.core import kernel
from probes.core.errors import ProbeError

PR_SET_DUMPABLE = 4
FILES, FILES_A_CPU = 96, 4
"""Open files that the default probes need: the same everywhere, and for each CPU."""
MOST_FILES = 2048
"""Open files of a process without privileges: targets that are added one by one, and clients."""
_DESCRIPTOR = re.compile(r"/(?:dev|proc/[^/]+)/fd/(\d+)")
_DANGEROUS = re.compile(
    r"LD_.*|PYTHON(?!DONTWRITEBYTECODE|UNBUFFERED).*|OPENSSL_.*|SSL.*|GCONV_PATH|LOCPATH|NLSPATH"
    r"|GLIBC_TUNABLES|MALLOC_.*|HOSTALIASES|LOCALDOMAIN|RES_OPTIONS|TMPDIR"
)
"""What makes libraries load files, or behave as somebody else wants."""
_PRIVILEGED = re.compile(
    r"PROBETOP_.*|SUDO_(UID|GID)|KUBERNETES_SERVICE_HOST|container|TERM|NO_COLOR|TZ"
    r"|PYTHONDONTWRITEBYTECODE"
)
"""What reaches the processes with privileges: neither BCC, clang nor debuginfod read any of it."""
SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_named: set[int] = set()
_unshared: set[int] = set()


def begin(arguments: Sequence[str]) -> None:
    """Let go of what the caller left open, but for files named by number in the arguments.

    A shell names what it opened for `<(...)` as /dev/fd/63: such a file stays open until
    `close_named`. Call it before anything is opened.
    """
    _named.update(int(n) for text in arguments for n in _DESCRIPTOR.findall(text) if len(n) < 10)
    for fd in _open_descriptors():
        if fd > 2 and fd not in _named:
            with suppress(OSError):
                os.close(fd)
    scrub(os.environ)
    raise_limits()


def _open_descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return list(range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 16)))


def close_named() -> None:
    """Close the files named by number: what is to be read of them was read."""
    while _named:
        with suppress(OSError):
            os.close(_named.pop())


def keep_from_broker(fd: int) -> None:
    """Have a descriptor closed in the processes that keep privileges."""
    _unshared.add(fd)


def scrub(environment: MutableMapping[str, str]) -> None:
    """Remove what changes how libraries work, as sudo does."""
    for name in [name for name in environment if _DANGEROUS.fullmatch(name)]:
        del environment[name]


def raise_limits() -> None:
    """As far as possible: open files, and locked memory, to which old kernels charge maps."""
    infinity = resource.RLIM_INFINITY
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (infinity, infinity))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < files_needed():
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (files_needed(), files_needed()))
            return
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def lower_limits() -> None:
    """For good, as few open files as a process without privileges needs: it shall hoard none."""
    most = MOST_FILES + files_needed()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not 0 <= hard <= most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def release_terminal() -> None:
    """Have no way to read keys: a terminal is for messages from now on.

    Another process to which such a descriptor is passed could read on after our end.
    """
    # A terminal ends with the leader of its session, and would end now.
    if os.getsid(0) != os.getpid():
        with suppress(OSError):
            _forget_terminal()
    null = _nothing()
    try:
        os.dup2(null, 0)
        for standard in (1, 2):
            if os.isatty(standard):
                _open_for_writing(standard, null)
    finally:
        os.close(null)


def _nothing() -> int:
    """A descriptor that has nothing to read; a container may have no /dev/null to open."""
    try:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.close(writing)
        return reading


def _forget_terminal() -> None:
    """Have no controlling terminal, which /dev/tty would open for any user."""
    fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, termios.TIOCNOTTY)
    finally:
        os.close(fd)


def _open_for_writing(standard: int, null: int) -> None:
    """Open a standard descriptor's terminal anew; `null` takes the place of one hung up."""
    try:
        fd = os.open(f"/proc/self/fd/{standard}", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.dup2(null, standard)
        return
    os.dup2(fd, standard)
    os.close(fd)


def files_needed() -> int:
    """How many open files a process of this program must be allowed to have."""
    return FILES + FILES_A_CPU * len(kernel.online_cpus())


def check_files() -> None:
    """Raises ProbeError where too few files may be open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files_needed()
    if 0 <= soft < needed:
        why = f"open files: {soft} are allowed, and {needed} are needed"
        fix = f"ulimit -n {needed}, as root; systemd: LimitNOFILE={needed}; "
        raise ProbeError(why, fix + f"podman or docker run --ulimit nofile={needed}")


def keep_privileges() -> None:
    """The beginning of a process that keeps its privileges, a fork of one that began already.

    It cannot be traced by others of its user, leaves no core file, and has an environment of its
    own.
    """
    close_named()
    for fd in _unshared:
        with suppress(OSError):
            os.close(fd)
    raise_limits()
    with suppress(OSError):
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)
    for name in [name for name in os.environ if not _PRIVILEGED.fullmatch(name)]:
        del os.environ[name]
    os.environ.update(PATH=SAFE_PATH, HOME="/", LC_ALL="C.UTF-8")
