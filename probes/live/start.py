# SPDX-License-Identifier: Apache-2.0
"""Starting to watch this machine: the broker that loads, and this process without privileges."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import Any, cast

from probes.bpf import control_page
from probes.broker import server as broker
from probes.broker.jobs import NO_HELPERS, Helper
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.frame import Filters
from probes.host import file_access, file_maker, privileges, process_start
from probes.host.files import unusable
from probes.host.filter_watch import FilterWatch
from probes.live.source import LiveSource
from probes.probe import Probe
from probes.symbols.target_spec import trusting

MOST_SERVED = 1 << 30
"""Bytes of a file that a process which serves may make: its log, and those without a name."""


def _probe(path: str) -> Probe:
    module, _, name = path.partition(":")
    return cast(Probe, getattr(import_module(module), name)())


def open_live(
    probe_paths: Mapping[str, str],
    *,
    on: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
    filters: Filters,
    interval: float,
    run_as: str | privileges.User | None = None,
    cost_always: bool = False,
    budget: float = 0.0,
    log: str | None = None,
    files: file_maker.Rule | None = None,
    helpers: Mapping[str, Helper] = NO_HELPERS,
    preload: Callable[[], object] = lambda: None,
    asker: file_access.Asker | None = None,
    include_self: bool = False,
    fixed: Mapping[str, Mapping[str, Any]] = broker.NOTHING_FIXED,
    serves: bool = False,
    draws: bool = False,
) -> LiveSource:
    """Start the broker, give up privileges for good, and return the Source, not yet started.

    `probe_paths` maps names to "module:Class"; `on` are the probes to switch on, `options`
    their options by probe. `budget` is what all of it may cost, in per cent of all CPUs, 0 for any
    amount. `run_as` is a name, or the user to become: whoever is root and names nobody becomes
    nobody. This process writes no file but the log: `files` says which ones another one makes for
    it. `helpers` is what the Source can be asked to have done. `preload` imports what is needed
    from then on: the user that we become may not be able to read where Python lives. Call it
    before any thread starts and before heavy imports, which the broker would carry too. `asker`
    says with whose rights files are looked up, if not with those of the user to become. `fixed` are
    parameters of probes that hold whatever is asked for later. `serves` is whether this process
    accepts connections, by which a terminal's keys must not go on, `draws` whether it draws Frames,
    fewer where that costs too much. Our own processes are counted only with `include_self`.
    Raises ProbeError.
    """
    if not kernel.may_load():
        why = "loading BPF programs needs CAP_BPF and CAP_PERFMON"
        raise ProbeError(why, "run it as root, through sudo")
    if kernel.arch() is None:
        raise ProbeError(f"{kernel.machine()} is not supported", "use x86_64 or arm64")
    process_start.raise_limits()
    process_start.check_files()
    # Files belong to the user who called; root's are not made by the nobody that it becomes.
    if isinstance(run_as, privileges.User):
        user, owns = run_as, run_as.uid != privileges.NOBODY
    else:
        user = privileges.service_user(run_as)
        owns = user == privileges.invoking_user(run_as)
    if files is not None:
        file_maker.start(files, user if owns else None)
    # Needed by the loader, but mounting is for us: the mount outlives both.
    kernel.tracefs()
    # What is wrong with the filters is said before anything runs. The broker must not inherit the
    # descriptor of a process, so that it is opened again below.
    FilterWatch(filters)
    # The targets of `options` come from the person who started this; later ones from who asks.
    policy = trusting(asker or file_access.Asker(user), options)
    number, link = broker.fork(probe_paths, helpers, policy, fixed)
    if not include_self:
        control_page.leave_out(os.getpid(), number)
    probes = {name: _probe(path) for name, path in probe_paths.items()}
    opened = None if log is None else _opened_log(log, user if owns else None)
    source = LiveSource(
        link,
        probes,
        interval=interval,
        cost_always=cost_always,
        budget=budget,
        draws=draws,
        log=opened,
    )
    for name, chosen in options.items():
        for option, value in chosen.items():
            source.set_option(name, option, value)
    source.set_filters(filters)
    for name in on:
        source.toggle(name, True)
    # The loader compiles while we still import what we draw with.
    source.begin()
    preload()
    process_start.close_named()
    if serves:
        process_start.release_terminal()
        file_maker.bound_files(MOST_SERVED)
    try:
        missing = privileges.drop(user, writes=False, serves=serves)
    except OSError as error:
        why = f"cannot give up privileges ({error.strerror})"
        fix = "run it as root, with CAP_SETUID and CAP_SETGID, or with --run-as root"
        raise ProbeError(why, fix) from error
    for words in missing:
        source.note(f"less confined: {words}")
    return source


def _opened_log(path: str, user: privileges.User | None) -> int:
    """The log's descriptor, opened with the rights of a user, or ours; raises ProbeError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        with nullcontext() if user is None else file_access.rights(user):
            return os.open(path, flags, 0o600)
    except (OSError, ValueError) as error:
        raise unusable("write to", path, error) from error
