# SPDX-License-Identifier: Apache-2.0
"""All options of the command line and the configuration file.

This module imports nothing that is slow to load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from probes.core.errors import ProbeError
from probes.core.frame import NO_FILTERS, Filters
from tui import registry
from tui.settings.validators import (
    UsageError,
    check_budget,
    check_cgroup,
    check_comm,
    check_cost,
    check_event,
    check_event_set,
    check_history,
    check_interval,
    check_path,
    check_pid,
    check_probes,
    check_run_as,
    check_sample,
    check_target,
    check_user,
    checked,
)


class Setting(NamedTuple):
    """One option. `metavar` is None for a switch.

    A `live` option needs the running kernel, the others a screen. An option with `many` may be
    given several times; its value is a tuple.
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
    """The effective settings, validated."""

    interval: float = 1.0
    filters: Filters = NO_FILTERS
    probes: tuple[str, ...] = ()
    latency: bool = False
    targets: tuple[str, ...] = ()
    force_timing: bool = False
    events: tuple[str, ...] = ()
    event_set: str | None = None
    event_mode: str | None = None
    cost_always: bool = False
    budget: float = 2.0
    sample: int = 1
    run_as: str | None = None
    log: str | None = None
    hide_args: bool = False
    include_self: bool = False
    ascii: bool = False
    history: float = 600.0

    @property
    def fixed(self) -> dict[str, dict[str, Any]]:
        """Parameters of probes that no command can change while the program runs."""
        return {"execs": {"args": False}} if self.hide_args else {}


def _as_is(raw: Any) -> Any:
    return raw


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "interval", ("-i", "--interval"), "S", "seconds between updates (default 1)",
        check_interval, (int, float),
    ),
    Setting("pid", ("-p", "--pid"), "PID", "only this process", check_pid, (int,)),
    Setting("comm", ("-c", "--comm"), "NAME", "only processes of this name", check_comm),
    Setting(
        "user",
        ("-u", "--user"),
        "USER",
        "only this user, real or effective",
        check_user,
        (str, int),
    ),
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
        "function", ("-f", "--function"), "SPEC", "target to time, e.g. uprobe:libc:malloc, runq",
        check_target, (list,), many=True,
    ),
    Setting(
        "force-timing", ("--force-timing",), None,
        "time functions also where an exception through them would abort the program",
        _as_is, (bool,),
    ),
    Setting(
        "event", ("--event",), "SPEC", "event to count: a perf name, NAME=rNNN, cpu/event=.../",
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
        "budget", ("--budget",), "PERCENT", "budget, of all CPUs (default 2, 0: no limit)",
        check_budget, (str, int, float),
    ),
    Setting(
        "sample", ("--sample",), "N", "with --latency: time one system call in N (default 1)",
        check_sample, (int,),
    ),
    Setting(
        "no-args", ("--no-args",), None,
        "hide the arguments of programs (not their files), which may be secret", _as_is, (bool,),
    ),
    Setting(
        "include-self", ("--include-self",), None, "count probetop's own processes as well",
        _as_is, (bool,),
    ),
    Setting("run-as", ("--run-as",), "USER", "user to run as after loading", check_run_as),
    Setting("log", ("--log",), "FILE", "append the compiler's messages to FILE", check_path),
    Setting(
        "history", ("--history",), "S", "seconds of the past to keep (default 600, 64 MB at most)",
        check_history, (int, float), live=False,
    ),
    Setting("ascii", ("--ascii",), None, "draw with ASCII only", _as_is, (bool,), live=False),
)  # fmt: skip


def resolve(typed: Mapping[str, Any], config: Mapping[str, tuple[str, Any]], live: bool) -> Options:
    """Return the effective settings: typed, else configured, else the default.

    `config` maps a name to its place in the file and its value. Without `live`, settings that need
    the running kernel keep their defaults. Raises UsageError.
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
        force_timing=values.get("force-timing", False),
        events=events,
        event_set=event_set,
        event_mode=event_mode,
        cost_always=values.get("cost", False),
        budget=values.get("budget", 2.0),
        sample=values.get("sample", 1),
        run_as=values.get("run-as"),
        log=values.get("log"),
        hide_args=values.get("no-args", False),
        include_self=values.get("include-self", False),
        ascii=values.get("ascii", False),
        history=values.get("history", 600.0),
    )


def _on_at_start(values: Mapping[str, Any], counts: bool) -> tuple[str, ...]:
    """The probes to start with: the named ones, and those with an option set."""
    at_start = tuple(entry.name for entry in registry.REGISTRY if entry.on_at_start)
    on: tuple[str, ...] = values.get("probes", at_start)
    if values.get("function") and "latency" not in on:
        on = (*on, "latency")
    if counts and "pmc" not in on:
        on = (*on, "pmc")
    return on


def _counted(values: Mapping[str, Any]) -> tuple[tuple[str, ...], str | None, str | None]:
    """The events, else the event set, and the mode of the counters. Raises UsageError."""
    user, kernel_only = values.get("user-only", False), values.get("kernel-only", False)
    if user and kernel_only:
        raise UsageError("--user-only: nothing is left with --kernel-only", "leave one out")
    mode = "user" if user else "kernel" if kernel_only else None
    events: tuple[str, ...] = values.get("event", ())
    if not events:
        return (), values.get("event-set"), mode
    from probes.pmc.events import check_events

    try:
        return tuple(check_events(list(events))), None, mode
    except ProbeError as error:
        raise UsageError(f"--event: {error.why}", error.fix) from error


def _value(setting: Setting, where: str, raw: Any) -> Any:
    if setting.many:
        return tuple(dict.fromkeys(checked(where, one, setting.check) for one in raw))
    return checked(where, raw, setting.check)
