# SPDX-License-Identifier: Apache-2.0
"""Validators of user input, for the command line, the configuration file and the agent.

Each takes a string, or a TOML or JSON value, and returns the value to use. It raises ProbeError
with the reason and the remedy. This module imports nothing that is slow to load.
"""

from __future__ import annotations

import pwd
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.limits import MOST_SAMPLE
from probes.core.safe_text import escaped, raw_of
from probes.core.suggestions import near
from probes.host.cgroups import paths_of_members, v1_directory, v1_mount
from tui import registry

SHORTEST, LONGEST = 0.05, 3600.0
"""Limits of the interval, in seconds."""
SHORTEST_HISTORY, LONGEST_HISTORY = 10.0, 86_400.0
"""Limits of the history, in seconds."""
COMM_BYTES = 15
"""Bytes of a process name that the kernel keeps."""
NO_ID = 2**32 - 1


class UsageError(ProbeError):
    """Raised for invalid user input; the exit status is 2."""


def shown(value: Any) -> str:
    """Quote user input for a message: short, without control characters."""
    try:
        text = value if isinstance(value, str) else str(value)
    except ValueError:
        # Python raises ValueError for the text of a number of thousands of digits.
        text = "a number of thousands of digits"
    text = text if len(text) <= 80 else text[:77] + "..."
    return f"'{text}'" if text.isprintable() else ascii(text)


def checked(where: str, raw: Any, check: Callable[[Any], Any]) -> Any:
    """Validate the input at `where`; raises UsageError that names both."""
    try:
        return check(raw)
    except ProbeError as error:
        raise UsageError(f"{where} {shown(raw)}: {error.why}", error.fix) from error


def remedy(word: str, known: Iterable[str]) -> str:
    """Suggest a known word that is similar to an unknown one."""
    known = list(known)
    close = near(word.lower(), known, 1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}"


def check_interval(raw: Any) -> float:
    """Seconds between two Frames."""
    limits = f"between {SHORTEST:g} and {LONGEST:g} seconds"
    try:
        seconds = float(raw)
    except (ValueError, OverflowError):
        raise ProbeError("not a number", f"give seconds {limits}, for example 0.5") from None
    if not SHORTEST <= seconds <= LONGEST:
        raise ProbeError("out of range", f"choose an interval {limits}")
    return seconds


def check_history(raw: Any) -> float:
    """Seconds of Frames that the history keeps."""
    limits = f"between {SHORTEST_HISTORY:g} and {LONGEST_HISTORY:g} seconds"
    try:
        seconds = float(raw)
    except (ValueError, OverflowError):
        raise ProbeError("not a number", f"give seconds {limits}, for example 600") from None
    if not SHORTEST_HISTORY <= seconds <= LONGEST_HISTORY:
        raise ProbeError("out of range", f"choose {limits}")
    return seconds


def check_seconds(raw: Any) -> float:
    """Seconds of a run, up to a year."""
    try:
        seconds = float(raw)
    except (ValueError, OverflowError):
        raise ProbeError("not a number", "give seconds, for example 10") from None
    if not 0 < seconds <= 31_536_000:
        raise ProbeError("out of range", "give seconds above 0")
    return seconds


def _number(raw: Any) -> int | None:
    """The number in up to ten digits; None for anything else."""
    if type(raw) is int:
        return raw if 0 <= raw < 10**10 else None
    text = str(raw)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def check_pid(raw: Any) -> int:
    """The id of a running process."""
    pid = _number(raw)
    if not pid:
        raise ProbeError("not a process id", "give a number as shown by ps or pgrep")
    status = kernel.read_text(f"/proc/{pid}/status")
    if status is None:
        raise ProbeError("no such process", "see ps or pgrep for those that run now")
    for line in status.split("\n"):
        if line.startswith("Tgid:") and int(line.split()[1]) != pid:
            raise ProbeError("a thread, not a process", f"give its process, {line.split()[1]}")
    return pid


def check_comm(raw: Any) -> str:
    """A process name, at most `COMM_BYTES` bytes."""
    data = raw_of(str(raw))
    if not data or b"\0" in data:
        raise ProbeError("not a process name", "give a name as shown by ps -o comm")
    if len(data) > COMM_BYTES:
        short = data[:COMM_BYTES].decode("utf-8", "ignore")
        raise ProbeError(f"the kernel keeps only {COMM_BYTES} bytes of a name", f"give {short!r}")
    return escaped(str(raw))


def check_user(raw: Any) -> int:
    """A user name or number, as a number."""
    uid = _number(raw)
    if uid is not None and uid < NO_ID:
        return uid
    try:
        return pwd.getpwnam(str(raw)).pw_uid
    except (KeyError, ValueError):
        raise ProbeError("no such user", "give a name or number known to getent passwd") from None


def check_run_as(raw: Any) -> str:
    """The name of an existing user."""
    try:
        return pwd.getpwnam(str(raw)).pw_name
    except (KeyError, ValueError):
        raise ProbeError("no such user", "give a name known to getent passwd") from None


def check_cgroup(raw: Any) -> str:
    """A cgroup's path below the cgroup2 mount, "/" for all; the mount's own path may precede it.

    A directory of a cgroup v1 hierarchy stands for the same path in cgroup2, if that exists.
    """
    mount = kernel.cgroup2()
    if mount is None:
        fix = "mount -t cgroup2 none /sys/fs/cgroup"
        raise ProbeError("no cgroup2 hierarchy is mounted", fix)
    fix = f"give a directory below {mount}, as systemd-cgls or /proc/PID/cgroup show it"
    try:
        given = Path(raw)
        v1 = v1_mount(given)
        below = str(given.relative_to(v1)) if v1 else str(raw).lstrip("/")
        path = (given if given.is_relative_to(mount) else mount / below).resolve()
        if path.is_relative_to(mount.resolve()) and (path / "cgroup.procs").exists():
            below = str(path.relative_to(mount.resolve()))
            # A path that is not valid UTF-8 can be neither shown nor recorded.
            below.encode("utf-8")
            return "/" if below == "." else f"/{below}"
    except (OSError, ValueError):
        pass
    other = _of_v1(raw)
    if other is not None:
        why = f"exists only in cgroup v1 ({escaped(str(other))}), but filters need cgroup2"
        raise ProbeError(why, _where_members_are(other))
    raise ProbeError("not a cgroup", fix)


def _of_v1(raw: Any) -> Path | None:
    """The v1 directory of a path, given with its mount or as /proc/PID/cgroup prints it."""
    try:
        given = Path(raw)
        mount = v1_mount(given)
        return v1_directory(str(given.relative_to(mount) if mount else raw))
    except (OSError, ValueError):
        return None


def _where_members_are(directory: Path) -> str:
    """A remedy for a v1 cgroup: the cgroup2 path of its processes."""
    paths = paths_of_members(directory)
    if not paths:
        return "give the path after 0:: in /proc/PID/cgroup of a process in it"
    if paths == {"/"}:
        return "its processes are in the root of cgroup2: filter by name, user or pid"
    if len(paths) == 1:
        return f"give {escaped(paths.pop())}, where its processes are in cgroup2"
    some = " and ".join([escaped(path) for path in sorted(paths)[:2]])
    return f"its processes are in {len(paths)} cgroups of cgroup2, as {some}: give one of them"


def check_remote_pid(raw: Any) -> int:
    """A process id of a remote host."""
    pid = _number(raw)
    if not pid:
        raise ProbeError("not a process id", "give a number as ps or pgrep show it there")
    return pid


def check_remote_user(raw: Any) -> int:
    """A user number of a remote host, where a name may belong to another user."""
    uid = _number(raw)
    if uid is None or uid >= NO_ID:
        raise ProbeError("not a user's number", "give the number that `id -u USER` says there")
    return uid


def check_remote_cgroup(raw: Any) -> str:
    """A cgroup of a remote host, below its cgroup2 mount."""
    if not str(raw).startswith("/"):
        raise ProbeError("not a cgroup", "give its path below /sys/fs/cgroup there, as /PATH")
    return str(raw)


def check_probes(raw: Any) -> tuple[str, ...]:
    """Names of probes, in the order of their keys."""
    words = raw.split(",") if isinstance(raw, str) else raw
    known = registry.names()
    for word in words:
        if not isinstance(word, str) or word.strip() not in known:
            raise ProbeError(f"unknown probe {shown(word)}", remedy(str(word).strip(), known))
    wanted = {word.strip() for word in words}
    if not wanted:
        raise ProbeError("no probe is named", f"choose from {', '.join(known)}")
    return tuple(name for name in known if name in wanted)


def check_cost(raw: Any) -> bool:
    """True if the kernel's run-time statistics stay on."""
    if raw not in ("always", "sampled"):
        raise ProbeError("unknown", remedy(str(raw), ("always", "sampled")))
    return bool(raw == "always")


def check_budget(raw: Any) -> float:
    """Per cent of all CPUs that the probes may use; 0 for no limit."""
    try:
        percent = float(str(raw).removesuffix("%"))
    except ValueError:
        raise ProbeError("not a number", "give per cent of all CPUs, for example 1") from None
    if not (percent == 0 or 0.1 <= percent <= 100):
        raise ProbeError("out of range", "choose between 0.1 and 100 per cent, or 0 for no limit")
    return percent


def check_sample(raw: Any) -> int:
    """The sampling ratio: one system call in this many is timed."""
    number = _number(raw)
    if not number or number > MOST_SAMPLE:
        raise ProbeError("not a number of calls", f"choose between 1 and {MOST_SAMPLE}")
    return number


def check_target(raw: Any) -> str:
    """A latency target in its normal form."""
    from probes.symbols.target_spec import parse

    return parse(str(raw)).text


def check_event(raw: Any) -> str:
    """One or more events for the counters, in perf's syntax."""
    from probes.pmc.events import check_events

    return ",".join(check_events([str(raw)]))


def check_event_set(raw: Any) -> str:
    """The name of an event set."""
    from probes.pmc.events import SETS

    if raw not in SETS:
        raise ProbeError("no such event set", remedy(str(raw), SETS))
    return str(raw)


def check_path(raw: Any) -> str:
    """A file name that a file system accepts."""
    if not raw or "\0" in raw:
        raise ProbeError("not a file name", "give the path of a file")
    return str(raw)
