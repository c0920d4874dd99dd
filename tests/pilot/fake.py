# SPDX-License-Identifier: Apache-2.0
"""A Source with made-up, repeatable data and a clock that stands still, for tests only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from probes.core import histogram
from probes.core.errors import ProbeError
from probes.core.frame import NO_FILTERS, Filters, Frame, Host, Notice
from probes.core.peak_values import with_peak
from probes.core.sample import Budget, Cost, Counts, Histogram, Sample
from probes.execs.sample import ExecEvent, ExecSample, ExitEvent
from probes.source import Found
from probes.syscalls.sample import SyscallSample
from tests.pilot.fake_latency import FOUND, FakeLatency, wobble
from tests.pilot.fake_pmc import FakePmc
from tui import registry

NOON = 1_700_000_000.0
HOSTILE_COMM = "\x1b[31mpwn\x07"
HOSTILE_ARGS = ("./x", "\x1b]0;owned\x07", "[red]x[/]", "\\xff\\xfe", "\u202egnp.exe", "a\u200bb")
CALLS = {
    "futex": (301_200, 214),
    "read": (188_000, 102),
    "epoll_wait": (90_400, 0),
    "write": (61_700, 3),
    "recvfrom": (40_210, 9_800),
    "sendto": (22_950, 0),
    "clock_nanosleep": (9_120, 0),
    "openat": (4_400, 1_310),
    "close": (4_020, 0),
    "newfstatat": (3_900, 870),
    "mmap": (1_870, 0),
    "munmap": (910, 0),
    "poll": (740, 0),
    "getpid": (402, 0),
    "fcntl": (377, 0),
    "lseek": (190, 11),
    "rt_sigaction": (95, 0),
    "execve": (38, 2),
    "clone3": (36, 0),
    "wait4": (35, 9),
    "compat:read": (12, 0),
    "io_uring_enter": (8, 0),
    "syscall_999": (3, 3),
    "bpf": (2, 1),
}
ERRNOS = {
    "futex": {"EAGAIN": 170, "ETIMEDOUT": 44},
    "read": {"EAGAIN": 102},
    "write": {"EPIPE": 3},
    "recvfrom": {"EAGAIN": 9_750, "ECONNRESET": 50},
    "openat": {"ENOENT": 1_290, "EACCES": 20},
    "newfstatat": {"ENOENT": 870},
    "lseek": {"ESPIPE": 11},
    "execve": {"ENOENT": 2},
    "wait4": {"ECHILD": 9},
    "syscall_999": {"ENOSYS": 3},
    "bpf": {"EPERM": 1},
}
PROCESSES = {
    811: "postgres",
    1203: "nginx",
    1204: "nginx",
    3120: "python3",
    77: "systemd-journal",
    5012: "node",
    6001: HOSTILE_COMM,
    6002: "[red]x[/]",
    6003: "日本語プロセス",
    1: "systemd",
}
PROGRAMS = (
    ("sshd", ("sh", "-c", "uptime; free -m"), "/user.slice/user-1000.slice/session-3.scope", 0),
    ("make", ("gcc", "-O2", "-c", "probe.c", "-o", "probe.o"), "/system.slice/build.service", 0),
    ("deploy", ("./deploy", "--fast", "it's done"), "/system.slice/cron.service", -2),
    (
        "containerd-shim",
        ("nginx", "-g", "daemon off;"),
        "/system.slice/docker-" + "0123456789abcdef" * 4 + ".scope",
        0,
    ),
    (HOSTILE_COMM, HOSTILE_ARGS, "/", 0),
    (
        "cron",
        ("find", "/srv/data", "-name", "*.log", "-mtime", "+7", "-delete"),
        "/system.slice/cron.service",
        0,
    ),
)


class FakeSource:
    """Pushes Frames when told to; remembers commands; fails with `errors` by command name."""

    live = lifts = True

    def __init__(self, title: str = "") -> None:
        self.title = title
        self.commands: list[tuple[object, ...]] = []
        self.errors: dict[str, ProbeError] = {}
        self.states: dict[str, Sample] = {}
        self.tick = 0
        self.interval = 1.0
        self.filters: Filters = NO_FILTERS
        self.notices: tuple[Notice, ...] = ()
        self.budget: Budget | None = None
        self.latency = False
        self.lost = 0
        self.stopped = False
        self.on = dict.fromkeys(registry.names(), True)
        self.latencies = FakeLatency(PROCESSES)
        self.counters = FakePmc(PROCESSES)
        self.queries: list[str] = []
        self.answering = True
        self._totals: dict[str, list[int]] = {name: [0, 0] for name in CALLS}
        self._matrix: dict[tuple[int, str], list[int]] = {}
        self._errnos: dict[tuple[str, str], int] = {}
        self._histograms: dict[str, tuple[dict[int, int], int, Mapping[int, int]]] = {}
        self._execs = self._failed = self._pid = 0
        self._live: list[tuple[int, float]] = []

    # -- the Source protocol ---------------------------------------------------------------

    def start(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        self.on_frame, self.on_end = on_frame, on_end

    def stop(self) -> None:
        self.stopped = True

    def toggle(self, probe: str, on: bool) -> None:
        self._command("toggle", probe, on)
        self.on[probe] = on

    def set_option(self, probe: str, option: str, value: object) -> None:
        self._command("set_option", probe, option, value)
        if option == "latency":
            self.latency = bool(value)
        elif option == "add":
            self.latencies.add(str(value))
        elif option == "remove":
            self.latencies.remove(str(value))
        elif probe == "pmc":
            self.counters.option(option, str(value))

    def set_filters(self, filters: Filters) -> None:
        self._command("set_filters", filters)
        self.filters = filters

    def set_interval(self, seconds: float) -> None:
        self._command("set_interval", seconds)
        self.interval = seconds

    def lift_budget(self, seconds: float) -> None:
        self._command("lift_budget", seconds)

    def search(self, query: str, on_found: Callable[[Sequence[Found]], None]) -> None:
        self.queries.append(query)
        error = self.errors.get("search")
        if error is not None:
            raise error
        if self.answering:
            on_found([found for found in FOUND if query.lower() in found.spec])

    def _command(self, *command: object) -> None:
        self.commands.append(command)
        error = self.errors.get(str(command[0]))
        if error is not None:
            raise error

    # -- data --------------------------------------------------------------------------------

    def push(self, ticks: int = 1) -> Frame:
        """Make `ticks` Frames and hand them over."""
        for _ in range(ticks):
            frame = self.frame()
            self.on_frame(frame)
        return frame

    def frame(self) -> Frame:
        """The next Frame."""
        self.tick += 1
        samples: dict[str, Sample] = {"syscalls": self._syscalls(), "execs": self._exec_sample()}
        if "latency" in self.on:
            samples["latency"] = self.latencies.sample(self.tick)
        if "pmc" in self.on:
            samples["pmc"] = self.counters.sample(self.tick)
        for name, on in self.on.items():
            if not on:
                samples[name] = type(samples[name])(state="off")
        samples.update(self.states)
        return Frame(
            time=NOON + self.tick * self.interval,
            mono=1000.0 + self.tick * self.interval,
            interval=self.interval,
            host=Host("web-3", "6.18.44", "x86_64", 8),
            load=3.1,
            filters=self.filters,
            samples=samples,
            notices=self.notices,
            budget=self.budget,
        )

    def _syscalls(self) -> SyscallSample:
        for salt, (name, (count, errors)) in enumerate(CALLS.items()):
            factor = wobble(self.tick, salt)
            total = self._totals[name]
            total[0] += round(count * factor)
            total[1] += round(errors * factor)
            for errno, n in ERRNOS.get(name, {}).items():
                key = (name, errno)
                self._errnos[key] = self._errnos.get(key, 0) + round(n * factor)
            rest = [round(count * factor), round(errors * factor)]
            for at, pid in reversed(list(enumerate(PROCESSES))):
                part = self._matrix.setdefault((pid, name), [0, 0])
                # The first has what the others leave: rows of processes make up the whole.
                mine = rest
                if at:
                    mine = [round(n * factor / (at + 2) ** 2) for n in (count, errors)]
                    rest = [n - m for n, m in zip(rest, mine, strict=True)]
                part[0] += mine[0]
                part[1] += mine[1]
            self._time(name, count, salt)
        events = sum([total[0] for total in self._totals.values()])
        return SyscallSample(
            state="on",
            lost=self.lost,
            generation=1,
            cost=Cost(events, 51.3, 0.42, 1_310_720),
            calls={name: Counts(*total) for name, total in self._totals.items()},
            errnos=dict(self._errnos),
            matrix={key: Counts(*part) for key, part in self._matrix.items()},
            comms=dict(PROCESSES),
            latency=(
                {
                    n: Histogram(dict(b), sum(b.values()), t, p)
                    for n, (b, t, p) in self._histograms.items()
                }
                if self.latency
                else None
            ),
        )

    def _time(self, name: str, count: int, salt: int) -> None:
        buckets, total, peaks = self._histograms.get(name, ({}, 0, {}))
        longest = 0
        for part, factor in ((0.5, 1), (0.45, 3), (0.05, 40)):
            nanoseconds = int(400 * (salt + 1) ** 2 * factor * wobble(self.tick, salt))
            bucket = histogram.index(nanoseconds)
            n = max(1, int(count * part))
            buckets[bucket] = buckets.get(bucket, 0) + n
            total += n * nanoseconds
            longest = max(longest, nanoseconds)
        peaks = with_peak(peaks, sum(buckets.values()), longest)
        self._histograms[name] = (buckets, total, peaks)

    def _exec_sample(self) -> ExecSample:
        now = NOON + self.tick * self.interval
        events: list[ExecEvent | ExitEvent] = []
        still: list[tuple[int, float]] = []
        for at, (pid, since) in enumerate(self._live):
            if at % 3 == 2 and now - since < 4:
                still.append((pid, since))
                continue
            code, signal = ((0, 0), (1, 0), (0, 9))[(pid + at) % 3]
            lived = int((now - since) * 1e9 / 7)
            events.append(
                ExitEvent(
                    time=now, pid=pid, comm="x", exit_code=code, signal=signal, duration=lived
                )
            )
        self._live = still
        for at in range(3 + self.tick % 4):
            parent, args, cgroup, ret = PROGRAMS[(self.tick + at) % len(PROGRAMS)]
            self._pid += 1
            pid = 8000 + self._pid
            events.append(
                ExecEvent(
                    time=now,
                    pid=pid,
                    ppid=400 + at,
                    uid=0,
                    comm=args[0][:15],
                    parent=parent,
                    args=args,
                    truncated=at == 4,
                    ret=ret,
                    cgroup=cgroup,
                )
            )
            if ret == 0:
                self._execs += 1
                self._live.append((pid, now))
            else:
                self._failed += 1
        return ExecSample(
            state="on",
            generation=1,
            execs=self._execs,
            failed=self._failed,
            cost=Cost(self._execs, 9_800.0, 0.03, 1_052_672),
            events=tuple(events),
        )


def failed(sample: Sample) -> Sample:
    """A Sample in the state `failed`, with a long reason."""
    return replace(
        sample,
        state="failed",
        why="the kernel refused the program of sys_enter (EPERM)",
        fix="run probetop as root, or give it CAP_BPF and CAP_PERFMON: sudo probetop",
    )
