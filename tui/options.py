# SPDX-License-Identifier: Apache-2.0
"""What a user may set, on the command line or in the configuration file, and its checks.

Every check takes what was typed (a string, or a TOML value) and returns the value to use; it
raises ProbeError with why it is wrong and how to mend it. Nothing heavy is imported here.
"""

from __future__ import annotations

import difflib
import os
import pwd
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from probes import kernel
from probes.base import ProbeError
from probes.samples import NO_FILTERS, Filters
from tui import registry

SHORTEST, LONGEST = 0.05, 3600.0
"""Limits of the interval, in seconds."""
SHORTEST_HISTORY, LONGEST_HISTORY = 10.0, 86_400.0
"""Limits of how much of the past is kept, in seconds."""
COMM_BYTES = 15
"""How much of a process name the kernel keeps."""
NO_ID = 2**32 - 1
MOST_SAMPLE = 65536
"""The rarest sampling of system calls."""


class UsageError(ProbeError):
    """Something that was typed is wrong: exit status 2."""


class Setting(NamedTuple):
    """One option. `metavar` is None for a switch.

    A `live` one needs the running kernel, the others a screen. One of `many` may be given
    several times; the value is a tuple then.
    """

    name: str
    flags: tuple[str, ...]
    metavar: str | None
    text: str
    check: Callable[[Any], Any]
    kinds: tuple[type, ...] = (str,)
    live: bool = True
    many: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The settings that hold, checked."""

    interval: float = 1.0
    filters: Filters = NO_FILTERS
    probes: tuple[str, ...] = ()
    latency: bool = False
    targets: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    event_set: str | None = None
    event_mode: str | None = None
    cost_always: bool = False
    budget: float = 2.0
    sample: int = 1
    run_as: str | None = None
    log: str | None = None
    ascii: bool = False
    history: float = 600.0


def near(word: str, known: Iterable[str]) -> str:
    """A remedy for a word that is not among the known ones."""
    known = list(known)
    close = difflib.get_close_matches(word.lower(), known, 1, 0.5)
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}"


def check_interval(raw: Any) -> float:
    """Seconds between Frames."""
    limits = f"between {SHORTEST:g} and {LONGEST:g} seconds"
    try:
        seconds = float(raw)
    except ValueError:
        raise ProbeError("not a number", f"give seconds {limits}, for example 0.5") from None
    if not SHORTEST <= seconds <= LONGEST:
        raise ProbeError("out of range", f"choose an interval {limits}")
    return seconds


def check_history(raw: Any) -> float:
    """How many seconds of the past are kept."""
    limits = f"between {SHORTEST_HISTORY:g} and {LONGEST_HISTORY:g} seconds"
    try:
        seconds = float(raw)
    except ValueError:
        raise ProbeError("not a number", f"give seconds {limits}, for example 600") from None
    if not SHORTEST_HISTORY <= seconds <= LONGEST_HISTORY:
        raise ProbeError("out of range", f"choose {limits}")
    return seconds


def check_seconds(raw: Any) -> float:
    """How long to go on; up to a year."""
    try:
        seconds = float(raw)
    except ValueError:
        raise ProbeError("not a number", "give seconds, for example 10") from None
    if not 0 < seconds <= 31_536_000:
        raise ProbeError("out of range", "give seconds above 0")
    return seconds


def _number(raw: Any) -> int | None:
    """The number that up to ten digits say, None for anything else."""
    text = str(raw)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def check_pid(raw: Any) -> int:
    """A process that runs now."""
    pid = _number(raw)
    if not pid:
        raise ProbeError("not a process id", "give a number as shown by ps or pgrep")
    status = kernel.read_text(f"/proc/{pid}/status")
    if status is None:
        raise ProbeError("no such process", "see ps or pgrep for those that run now")
    for line in status.splitlines():
        if line.startswith("Tgid:") and int(line.split()[1]) != pid:
            raise ProbeError("a thread, not a process", f"give its process, {line.split()[1]}")
    return pid


def check_comm(raw: Any) -> str:
    """A process name as the kernel keeps it."""
    data = os.fsencode(raw)
    if not data or b"\0" in data:
        raise ProbeError("not a process name", "give a name as shown by ps -o comm")
    if len(data) > COMM_BYTES:
        short = data[:COMM_BYTES].decode("utf-8", "ignore")
        raise ProbeError(f"the kernel keeps only {COMM_BYTES} bytes of a name", f"give {short!r}")
    return str(raw)


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
    """A user name that exists."""
    try:
        return pwd.getpwnam(str(raw)).pw_name
    except (KeyError, ValueError):
        raise ProbeError("no such user", "give a name known to getent passwd") from None


def check_cgroup(raw: Any) -> str:
    """A cgroup's path below the cgroup2 mount, "/" for all; also given with the mount's path."""
    mount = kernel.cgroup2()
    if mount is None:
        fix = "mount -t cgroup2 none /sys/fs/cgroup"
        raise ProbeError("no cgroup2 hierarchy is mounted", fix)
    fix = f"give a directory below {mount}, as systemd-cgls or /proc/PID/cgroup show it"
    try:
        given = Path(raw)
        inside = given.is_relative_to(mount)
        path = (given if inside else mount / str(raw).lstrip("/")).resolve()
        if path.is_relative_to(mount.resolve()) and (path / "cgroup.procs").exists():
            below = str(path.relative_to(mount.resolve()))
            return "/" if below == "." else f"/{below}"
    except (OSError, ValueError):
        pass
    raise ProbeError("not a cgroup", fix)


def check_probes(raw: Any) -> tuple[str, ...]:
    """Names of probes, in the order of their keys."""
    words = raw.split(",") if isinstance(raw, str) else raw
    known = registry.names()
    for word in words:
        if not isinstance(word, str) or word.strip() not in known:
            raise ProbeError(f"unknown probe {shown(word)}", near(str(word).strip(), known))
    wanted = {word.strip() for word in words}
    if not wanted:
        raise ProbeError("no probe is named", f"choose from {', '.join(known)}")
    return tuple(name for name in known if name in wanted)


def check_cost(raw: Any) -> bool:
    """Whether the kernel's run-time statistics run all the time."""
    if raw not in ("always", "sampled"):
        raise ProbeError("unknown", near(str(raw), ("always", "sampled")))
    return bool(raw == "always")


def check_budget(raw: Any) -> float:
    """Per cent of all CPUs that the probes may take, 0 for any amount."""
    try:
        percent = float(str(raw).removesuffix("%"))
    except ValueError:
        raise ProbeError("not a number", "give per cent of all CPUs, for example 1") from None
    if not (percent == 0 or 0.1 <= percent <= 100):
        raise ProbeError("out of range", "choose between 0.1 and 100 per cent, or 0 for no limit")
    return percent


def check_sample(raw: Any) -> int:
    """Of how many system calls one is timed."""
    number = _number(raw)
    if not number or number > MOST_SAMPLE:
        raise ProbeError("not a number of calls", f"choose between 1 and {MOST_SAMPLE}")
    return number


def check_target(raw: Any) -> str:
    """A latency target in its normal form."""
    from probes.specs import parse

    return parse(str(raw)).text


def check_event(raw: Any) -> str:
    """One or more events for the counters, as perf writes them."""
    from probes.pmc_events import check_events

    return ",".join(check_events([str(raw)]))


def check_event_set(raw: Any) -> str:
    """The name of an event set."""
    from probes.pmc_events import SETS

    if raw not in SETS:
        raise ProbeError("no such event set", near(str(raw), SETS))
    return str(raw)


def check_path(raw: Any) -> str:
    """A file name that a file system can take."""
    if not raw or "\0" in raw:
        raise ProbeError("not a file name", "give the path of a file")
    return str(raw)


def _as_is(raw: Any) -> Any:
    return raw


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "interval", ("-i", "--interval"), "S", "seconds between updates (default 1)",
        check_interval, (int, float),
    ),
    Setting("pid", ("-p", "--pid"), "PID", "only this process", check_pid, (int,)),
    Setting("comm", ("-c", "--comm"), "NAME", "only processes of this name", check_comm),
    Setting("user", ("-u", "--user"), "USER", "only this user", check_user, (str, int)),
    Setting(
        "cgroup", ("--cgroup",), "PATH", "only this cgroup and those below it", check_cgroup
    ),
    Setting(
        "probes", ("--probes",), "LIST", f"on at start: {','.join(registry.names())}",
        check_probes, (str, list),
    ),
    Setting(
        "latency", ("--latency",), None, "time system calls (costs more)", _as_is, (bool,)
    ),
    Setting(
        "function", ("-f", "--function"), "SPEC", "time this, e.g. uprobe:libc:malloc, runq",
        check_target, (list,), many=True,
    ),
    Setting(
        "event", ("--event",), "SPEC", "count this: a name of perf's, NAME=rNNN, cpu/event=.../",
        check_event, (list,), many=True,
    ),
    Setting(
        "event-set", ("--event-set",), "NAME", "count base (default), cache, branch, stalls or tlb",
        check_event_set,
    ),
    Setting(
        "user-only", ("--user-only",), None, "events of user space only", _as_is, (bool,)
    ),
    Setting(
        "kernel-only", ("--kernel-only",), None, "events of the kernel only", _as_is, (bool,)
    ),
    Setting(
        "cost", ("--cost",), "WHEN", "measure the probes' cost: always, or sampled (default)",
        check_cost,
    ),
    Setting(
        "budget", ("--budget",), "PERCENT", "of all CPUs that this may take (default 2, 0: any)",
        check_budget, (str, int, float),
    ),
    Setting(
        "sample", ("--sample",), "N", "with --latency: time one system call in N (default 1)",
        check_sample, (int,),
    ),
    Setting("run-as", ("--run-as",), "USER", "who to be once the probes run", check_run_as),
    Setting("log", ("--log",), "FILE", "append what the compiler says to FILE", check_path),
    Setting(
        "history", ("--history",), "S", "seconds of the past to keep (default 600, 64 MB at most)",
        check_history, (int, float), live=False,
    ),
    Setting("ascii", ("--ascii",), None, "draw with ASCII only", _as_is, (bool,), live=False),
)  # fmt: skip


def shown(value: Any) -> str:
    """Something typed, for a message: short, quoted, nothing in it acts on a terminal."""
    text = value if isinstance(value, str) else str(value)
    text = text if len(text) <= 80 else text[:77] + "..."
    return f"'{text}'" if text.isprintable() else ascii(text)


def checked(where: str, raw: Any, check: Callable[[Any], Any]) -> Any:
    """The value of what was typed at `where`; raises UsageError naming both."""
    try:
        return check(raw)
    except ProbeError as error:
        raise UsageError(f"{where} {shown(raw)}: {error.why}", error.fix) from error


def resolve(typed: Mapping[str, Any], config: Mapping[str, tuple[str, Any]], live: bool) -> Options:
    """The settings that hold: what was typed, else the configuration, else the default.

    `config` maps a name to where it stands and its value; without `live`, settings that need
    the running kernel are left at their defaults. Raises UsageError.
    """
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        if setting.live and not live:
            if setting.name in typed:
                why = f"{setting.flags[-1]}: does nothing with this command"
                raise UsageError(why, "leave it out")
        elif setting.name in typed:
            where = "/".join(setting.flags)
            values[setting.name] = _value(setting, where, typed[setting.name])
        elif setting.name in config:
            values[setting.name] = _value(setting, *config[setting.name])
    events, event_set, event_mode = _counted(values)
    return Options(
        interval=values.get("interval", 1.0),
        filters=Filters(
            values.get("pid"), values.get("comm"), values.get("user"), values.get("cgroup")
        ),
        probes=_on_at_start(values, bool(events or event_set or event_mode)),
        latency=values.get("latency", False),
        targets=values.get("function", ()),
        events=events,
        event_set=event_set,
        event_mode=event_mode,
        cost_always=values.get("cost", False),
        budget=values.get("budget", 2.0),
        sample=values.get("sample", 1),
        run_as=values.get("run-as"),
        log=values.get("log"),
        ascii=values.get("ascii", False),
        history=values.get("history", 600.0),
    )


def _on_at_start(values: Mapping[str, Any], counts: bool) -> tuple[str, ...]:
    """The probes to start with: those named, and those that something was asked of."""
    at_start = tuple(entry.name for entry in registry.REGISTRY if entry.on_at_start)
    on: tuple[str, ...] = values.get("probes", at_start)
    if values.get("function") and "latency" not in on:
        on = (*on, "latency")
    if counts and "pmc" not in on:
        on = (*on, "pmc")
    return on


def _counted(values: Mapping[str, Any]) -> tuple[tuple[str, ...], str | None, str | None]:
    """The events, else the event set, and the mode of the counters; raises UsageError."""
    user, kernel_only = values.get("user-only", False), values.get("kernel-only", False)
    if user and kernel_only:
        raise UsageError("--user-only: nothing is left with --kernel-only", "leave one out")
    mode = "user" if user else "kernel" if kernel_only else None
    events: tuple[str, ...] = values.get("event", ())
    if not events:
        return (), values.get("event-set"), mode
    from probes.pmc_events import check_events

    try:
        return tuple(check_events(list(events))), None, mode
    except ProbeError as error:
        raise UsageError(f"--event: {error.why}", error.fix) from error


def _value(setting: Setting, where: str, raw: Any) -> Any:
    if setting.many:
        return tuple(dict.fromkeys(checked(where, one, setting.check) for one in raw))
    return checked(where, raw, setting.check)
