# SPDX-License-Identifier: Apache-2.0
"""With whose rights files are looked up: those of the person who asks, not those of root.

The broker sets the policy when it is forked, so that no message can change it; the loader and
the search process inherit it.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from probes.core.errors import ProbeError
from probes.host.load_time import MOST_WAITED, waited_for_cpu
from probes.host.privileges import CAPABILITY_VERSION_3, NOBODY, User

MOST_PID = 1 << 22
"""The kernel's PID_MAX_LIMIT on 64-bit machines."""


@dataclass(frozen=True, slots=True)
class Asker:
    """What the person who asks for targets may reach.

    `user` is whose rights files are opened with, None for those of this process. With `mapped`,
    a file that some process has mapped executable may be traced as well. The target texts in
    `trusted` come from the person who started the program, whose rights are this process's.
    `offsets` allows instructions inside of functions.
    """

    user: User | None = None
    mapped: bool = True
    trusted: frozenset[str] = frozenset()
    offsets: bool = True

    @property
    def name(self) -> str:
        """How errors name the user."""
        if self.user is None:
            return "this process"
        return f"user {self.user.name or self.user.uid}"


_SETUID = 1 << 6 | 1 << 7
"""CAP_SETGID and CAP_SETUID."""
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 1, 2, 3, 4


class TooSlow(ProbeError):
    """Reading the files of a target took longer than it may."""


def for_clients(offsets: bool = False) -> Asker:
    """The policy of an agent: its clients reach what everybody on the machine can read."""
    return Asker(User(NOBODY, NOBODY, "nobody"), offsets=offsets)


OWN_RIGHTS = Asker()
"""The policy for whoever has this process's rights anyhow."""
_asker = OWN_RIGHTS
_trusting = False
_acting = False
_deadline = float("inf")
_waited = 0.0


def set_asker(asker: Asker) -> None:
    """Set the policy of this process and of those that it forks."""
    global _asker
    _asker = asker


def asker() -> Asker:
    """The policy of this process."""
    return _asker


def offsets_allowed() -> bool:
    """Whether the target at hand may be an instruction inside of a function."""
    return _trusting or _asker.offsets


def has_own_rights(elsewhere: bool = False) -> bool:
    """Whether files are opened with this process's own rights; those of processes if `elsewhere`.

    No text of a target vouches for what a process has chosen as its root.
    """
    user = _asker.user
    return (_trusting and not elsewhere) or user is None or user.uid == os.geteuid() == 0


@contextmanager
def target(text: str, seconds: float) -> Iterator[None]:
    """Inside, files are read for the target `text`, for at most some seconds."""
    global _trusting, _deadline, _waited
    before = _trusting, _deadline, _waited
    _trusting, _deadline = text in _asker.trusted, time.monotonic() + seconds
    _waited = waited_for_cpu()
    try:
        yield
    finally:
        _trusting, _deadline, _waited = before


@contextmanager
def untrusted() -> Iterator[None]:
    """Inside, files are looked up with the rights of the person who asks, whatever the target."""
    global _trusting
    before, _trusting = _trusting, False
    try:
        yield
    finally:
        _trusting = before


def check_time() -> float:
    """Seconds that the target at hand has left; raises ProbeError when it has had its time.

    For how long others have the CPUs does not count.
    """
    left = _deadline - time.monotonic()
    if left < 0:
        left += min(waited_for_cpu() - _waited, MOST_WAITED)
    if left < 0:
        why = "reading the files of this target takes too long"
        raise TooSlow(why, "name a smaller file, or fewer targets at once")
    return left


@contextmanager
def rights(of: User | None = None) -> Iterator[None]:
    """Inside, file names are looked up with the rights of the person who asks, or of a user.

    The effective user, groups and capabilities change. The real user does not: a process that may
    be signalled by the person who asks would be no safe one.
    """
    global _acting
    user = of or _asker.user
    if _acting or user is None or (of is None and has_own_rights()):
        yield
        return
    before = os.geteuid(), os.getegid(), os.getgroups()
    capabilities, tied = _capabilities(), _ties()
    groups = _groups(user)
    _acting = True
    try:
        try:
            _become(user, groups, capabilities)
        except OSError as error:
            why = f"files cannot be looked up as {_asker.name} ({error.strerror})"
            fix = "run probetop as root, with CAP_SETUID and CAP_SETGID"
            raise ProbeError(why, fix) from error
        yield
    finally:
        _return(*before, capabilities)
        _acting = False
        _tie(*tied)


def _groups(user: User) -> list[int]:
    """The groups that a user is in."""
    known = user.name is not None and user.uid != NOBODY
    return os.getgrouplist(user.name or "", user.gid) if known else [user.gid]


def _become(user: User, groups: Sequence[int], capabilities: Sequence[int]) -> None:
    if os.geteuid() == 0 or _SETUID & capabilities[0] == _SETUID:
        os.setgroups(groups)
        os.setegid(user.gid)
        os.seteuid(user.uid)
    # A service of a user of its own, which may not change it, has that user's rights alone.
    _set_capabilities([0 if at in (0, 3) else word for at, word in enumerate(capabilities)])


def _return(uid: int, gid: int, groups: Sequence[int], capabilities: Sequence[int]) -> None:
    """Undo `_become`; a failure must end the process rather than leave it in between."""
    try:
        if os.geteuid() != uid:
            os.seteuid(uid)
        _set_capabilities(capabilities)
        if os.getegid() != gid:
            os.setegid(gid)
        if os.getgroups() != groups:
            os.setgroups(groups)
    except OSError:
        os._exit(1)


def _ties() -> tuple[int, int, int]:
    """The signal that this process gets when its parent dies, the parent, and PR_GET_DUMPABLE."""
    libc, number = ctypes.CDLL(None), ctypes.c_int(0)
    libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(number))
    return number.value, os.getppid(), libc.prctl(_PR_GET_DUMPABLE)


def _tie(number: int, parent: int, dumpable: int) -> None:
    """Set again what a change of the user clears."""
    libc = ctypes.CDLL(None)
    if dumpable == 1:
        libc.prctl(_PR_SET_DUMPABLE, dumpable)
    if number:
        libc.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)


def _header() -> ctypes.Array[ctypes.c_uint32]:
    return (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)


def _capabilities() -> list[int]:
    """Words of effective, permitted and inheritable capabilities: low ones, then high ones."""
    words = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capget(_header(), words) != 0:
        number = ctypes.get_errno()
        raise ProbeError(f"capabilities cannot be read ({os.strerror(number)})", "run as root")
    return list(words)


def _set_capabilities(words: Sequence[int]) -> None:
    if ctypes.CDLL(None, use_errno=True).capset(_header(), (ctypes.c_uint32 * 6)(*words)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def checked_pid(pid: object) -> int:
    """A process id that may become a part of a path; raises ProbeError for anything else."""
    if type(pid) is int and 0 < pid <= MOST_PID:
        return pid
    raise ProbeError(f"{str(pid)[:40]!r} is no process id", f"give a number from 1 to {MOST_PID}")
