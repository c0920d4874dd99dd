# SPDX-License-Identifier: Apache-2.0
"""Giving up privileges for good: what is left holds descriptors and nothing else.

A process that has given them up has the rights of a user, no capability, a Landlock domain and a
seccomp filter. Root itself is never that user unless somebody says so: without any capability uid
0 still owns the machine's files and may talk to its service manager.
"""

from __future__ import annotations

import ctypes
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.syscall_names import nr_of
from probes.host import landlock, process_start, seccomp

PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAPBSET_READ, PR_CAPBSET_DROP = 4, 8, 23, 24
PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 28, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
# NOROOT and NO_SETUID_FIXUP, both locked: uid 0 is a user like any other from then on.
SECUREBITS = 0b1111
CAPABILITY_VERSION_3 = 0x20080522
NOBODY = 65534
"""The user and the group that own nothing."""


@dataclass(frozen=True, slots=True)
class User:
    """Whom the dashboard runs as. `name` is None for a uid without a passwd entry."""

    uid: int
    gid: int
    name: str | None


def invoking_user(run_as: str | None) -> User:
    """The user given by name or uid, else the one that sudo was called by, else our own.

    Raises ProbeError for a user that does not exist.
    """
    if run_as is not None:
        try:
            entry = pwd.getpwuid(int(run_as)) if run_as.isdigit() else pwd.getpwnam(run_as)
        except KeyError:
            fix = "name a user of this machine"
            raise ProbeError(f"--run-as {run_as}: there is no such user", fix) from None
        return User(entry.pw_uid, entry.pw_gid, entry.pw_name)
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and uid.isdigit() and gid.isdigit():
        try:
            return User(int(uid), int(gid), pwd.getpwuid(int(uid)).pw_name)
        except KeyError:
            return User(int(uid), int(gid), None)
    return User(os.geteuid(), os.getegid(), None)


def service_user(run_as: str | None) -> User:
    """As `invoking_user`, but who is root and names nobody else becomes nobody."""
    user = invoking_user(run_as)
    return User(NOBODY, NOBODY, None) if run_as is None and user.uid == 0 else user


def may_read(user: User, *paths: str) -> bool:
    """Whether a user can reach these files, by the mode of the folders on the way to them."""
    if user.uid == 0:
        return True
    groups = set(os.getgrouplist(user.name, user.gid)) if user.name else {user.gid}
    for path in paths:
        for folder in Path(os.path.abspath(path)).parents:
            status = folder.stat()
            shift = 6 if status.st_uid == user.uid else 3 if status.st_gid in groups else 0
            if not status.st_mode >> shift & 1:
                return False
    return True


def drop(user: User, *, writes: bool = True, serves: bool = False) -> tuple[str, ...]:
    """Become `user` without any capability, for this process and all that it may start.

    `writes`: whether it may write files wherever the user may. `serves`: whether it accepts
    connections on a socket that it has. Must run before any thread is started. Returns what this
    kernel could not add to that, one sentence each. Raises OSError if the kernel refuses.
    """
    # The user may not be able to read the table of names.
    nr_of("seccomp", kernel.machine())
    _become(user)
    process_start.lower_limits()
    missing = (landlock.restrict(writes=writes), seccomp.install(serves=serves))
    return tuple(why for why in missing if why is not None)


def _become(user: User) -> None:
    """Take the user's ids and groups, and give up every capability."""
    libc = ctypes.CDLL(None, use_errno=True)

    def prctl(option: int, *args: int) -> int:
        words = [ctypes.c_ulong(word) for word in (*args, 0, 0, 0, 0)[:4]]
        return int(libc.prctl(option, *words))

    def must(result: int) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    if "CAP_SETPCAP" in kernel.capabilities():
        for number in range(64):
            if prctl(PR_CAPBSET_READ, number) == 1:
                must(prctl(PR_CAPBSET_DROP, number))
        must(prctl(PR_SET_SECUREBITS, SECUREBITS))
    if user.uid != os.geteuid() or user.gid != os.getegid():
        os.initgroups(user.name, user.gid) if user.name else os.setgroups([user.gid])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    must(libc.capset(header, (ctypes.c_uint32 * 6)()))
    # Else others of this user could take its descriptors, where no user was changed.
    must(prctl(PR_SET_DUMPABLE, 0))
    must(prctl(PR_SET_NO_NEW_PRIVS, 1))
