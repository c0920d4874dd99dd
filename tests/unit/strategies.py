# SPDX-License-Identifier: Apache-2.0
"""Arbitrary Frames, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from probes.core.frame import Filters, Frame, Host, Notice
from probes.core.readings import Reading
from probes.core.sample import Cost, Counts, Histogram, Sample
from probes.execs.sample import ExecEvent, ExecSample, ExitEvent
from probes.latency.sample import LatencySample, Spent, Target
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes
from probes.syscalls.sample import SyscallSample

text = st.text(st.characters(codec="utf-8"), max_size=8)
names = st.sampled_from(["read", "write", "futex", "compat:read", "syscall_999"])
counters = st.integers(0, 2**64 - 1)
pids = st.integers(1, 2**22)
times = st.floats(0, 1e10)
maybe_float = st.none() | st.floats(0, 1e9)
states = st.sampled_from(["on", "off", "starting", "failed"])
costs = st.builds(Cost, counters, maybe_float, maybe_float, st.none() | counters)
counts = st.builds(Counts, counters, counters)
histograms = st.builds(
    Histogram,
    st.dictionaries(st.integers(0, 1279), counters, max_size=5),
    counters,
    counters,
    st.dictionaries(counters, counters, max_size=3),
)
common = {
    "state": states,
    "why": st.none() | text,
    "fix": st.none() | text,
    "lost": counters,
    "cost": costs,
    "generation": st.integers(0, 9),
    "notes": st.lists(text, max_size=2).map(tuple),
}
syscall_samples = st.builds(
    SyscallSample,
    calls=st.dictionaries(names, counts),
    errnos=st.dictionaries(st.tuples(names, text), counters, max_size=4),
    matrix=st.dictionaries(st.tuples(pids, names), counts, max_size=6),
    comms=st.dictionaries(pids, text, max_size=4),
    unattributed=counters,
    latency=st.none() | st.dictionaries(names, histograms, max_size=3),
    sample_every=st.integers(1, 64),
    missed=counters,
    **common,
)
exec_events = st.builds(
    ExecEvent,
    time=times,
    pid=pids,
    ppid=pids,
    uid=st.integers(0, 2**32 - 1),
    comm=text,
    parent=text,
    args=st.none() | st.lists(text, max_size=3).map(tuple),
    truncated=st.booleans(),
    ret=st.integers(-4095, 0),
    cgroup=st.none() | text,
    path=st.none() | text,
)
exit_events = st.builds(
    ExitEvent,
    time=times,
    pid=pids,
    comm=text,
    exit_code=st.integers(0, 255),
    signal=st.integers(0, 64),
    duration=st.none() | counters,
)
exec_samples = st.builds(
    ExecSample,
    execs=counters,
    failed=counters,
    exits=counters,
    events=st.lists(exec_events | exit_events, max_size=3).map(tuple),
    dropped=counters,
    **common,
)
events = st.sampled_from(["cycles", "instructions", "cache-misses", "page-faults", "pid", "a=r1"])
readings = st.builds(Reading, counters, counters, counters)
cpus = st.integers(0, 4095)
pmc_samples = st.builds(
    PmcSample,
    hardware=st.booleans(),
    reason=st.none() | text,
    event_set=st.sampled_from(["base", "tlb", "custom"]),
    mode=st.sampled_from(["all", "user", "kernel"]),
    events=st.lists(events, unique=True, max_size=4).map(tuple),
    absent=st.dictionaries(events, text, max_size=2),
    tasks=st.dictionaries(
        st.integers(0, 3),
        st.builds(TaskTimes, counters, counters, counters, st.none() | counters),
        max_size=3,
    ),
    readings=st.dictionaries(st.tuples(st.integers(0, 3), events), readings, max_size=5),
    cpus=st.dictionaries(
        st.integers(0, 3),
        st.builds(CpuTimes, counters, counters, counters, st.none() | counters),
        max_size=3,
    ),
    cpu_readings=st.dictionaries(st.tuples(st.integers(0, 3), events), readings, max_size=5),
    comms=st.dictionaries(st.integers(0, 3), text, max_size=2),
    kinds=st.dictionaries(cpus, text, max_size=2),
    sockets=st.dictionaries(cpus, st.integers(0, 7), max_size=2),
    unattributed=counters,
    **common,
)
specs = st.sampled_from(["runq", "uprobe:libc:malloc", "usdt:a:b:c@str(arg0)"])
spent = st.builds(Spent, counters, counters)
targets = st.builds(
    Target,
    spec=text,
    mechanism=st.none() | st.sampled_from(["uprobe", "usdt", "tracepoint"]),
    state=states,
    why=st.none() | text,
    fix=st.none() | text,
    functions=st.integers(0, 64),
    counts_only=st.booleans(),
    histogram=histograms,
    missed=counters,
    overflow=counters,
    floor=maybe_float,
    unit=st.sampled_from(["ns", ""]),
    by_text=st.booleans(),
    file=st.none() | st.sampled_from(["current", "replaced", "deleted"]),
)
latency_samples = st.builds(
    LatencySample,
    targets=st.dictionaries(specs, targets, max_size=3),
    processes=st.dictionaries(st.tuples(specs, pids), spent, max_size=4),
    comms=st.dictionaries(pids, text, max_size=3),
    texts=st.dictionaries(st.tuples(specs, text), spent, max_size=4),
    **common,
)
samples: st.SearchStrategy[Sample] = (
    syscall_samples | exec_samples | pmc_samples | latency_samples | st.builds(Sample, **common)
)
notices = st.builds(
    Notice,
    st.sampled_from(["process_ended", "cgroup_removed", "cgroup_followed", "something new"]),
    times,
    st.none() | pids,
    st.none() | text,
    st.none() | text,
    maybe_float,
)
frames = st.builds(
    Frame,
    time=times,
    mono=times,
    interval=st.floats(0.05, 3600),
    host=st.builds(Host, text, text, text, st.integers(1, 4096)),
    load=maybe_float,
    filters=st.builds(
        Filters, st.none() | pids, st.none() | text, st.none() | pids, st.none() | text
    ),
    samples=st.dictionaries(
        st.sampled_from(["syscalls", "execs", "latency", "pmc", "other"]), samples
    ),
    notices=st.lists(notices, max_size=2).map(tuple),
)
