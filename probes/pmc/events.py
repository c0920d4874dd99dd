# SPDX-License-Identifier: Apache-2.0
"""Counters by the names that perf gives them: what they are, and how this machine opens them.

Numbers are those of include/uapi/linux/perf_event.h. A PMU and its events are described in
/sys/bus/event_source/devices (Documentation/ABI/testing/sysfs-bus-event_source-devices-*).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

from probes.bpf import bpf_syscall
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.suggestions import did_you_mean, near, quote

DEVICES = Path("/sys/bus/event_source/devices")
MOST_EVENTS = 8
"""Most events at once: each costs every switch its time."""

Mode = Literal["all", "user", "kernel"]
MODES: Mapping[str, int] = {
    "all": 0,
    "user": bpf_syscall.PERF_EXCLUDE_KERNEL | bpf_syscall.PERF_EXCLUDE_HV,
    "kernel": bpf_syscall.PERF_EXCLUDE_USER | bpf_syscall.PERF_EXCLUDE_HV,
}
"""What hardware counters leave out in each mode."""

CUSTOM = "custom"
SETS: Mapping[str, tuple[str, ...]] = {
    "base": ("cycles", "instructions", "cache-misses", "branches", "branch-misses"),
    "cache": (
        "cycles",
        "instructions",
        "cache-references",
        "cache-misses",
        "L1-dcache-load-misses",
        "LLC-load-misses",
    ),
    "branch": ("cycles", "instructions", "branches", "branch-misses"),
    "stalls": (
        "cycles",
        "instructions",
        "stalled-cycles-frontend",
        "stalled-cycles-backend",
        "bus-cycles",
    ),
    "tlb": ("cycles", "instructions", "dTLB-loads", "dTLB-load-misses", "iTLB-load-misses"),
}
"""Events that are of use together, few enough for most CPUs to count at once."""

FAULTS = ("page-faults", "major-faults")
"""Events that need no counter: the kernel keeps them for each thread."""
ALWAYS = frozenset({*FAULTS, "context-switches", "cpu-migrations", "task-clock"})
"""What is shown without asking, by whatever way it is counted."""

_HARDWARE = (
    "cycles",
    "instructions",
    "cache-references",
    "cache-misses",
    "branches",
    "branch-misses",
    "bus-cycles",
    "stalled-cycles-frontend",
    "stalled-cycles-backend",
    "ref-cycles",
)
_SOFTWARE = (
    "cpu-clock",
    "task-clock",
    "page-faults",
    "context-switches",
    "cpu-migrations",
    "minor-faults",
    "major-faults",
    "alignment-faults",
    "emulation-faults",
    "dummy",
    "bpf-output",
    "cgroup-switches",
)
_ALIASES = {
    "cpu-cycles": "cycles",
    "branch-instructions": "branches",
    "idle-cycles-frontend": "stalled-cycles-frontend",
    "idle-cycles-backend": "stalled-cycles-backend",
    "faults": "page-faults",
    "cs": "context-switches",
    "migrations": "cpu-migrations",
}
_CACHES = ("L1-dcache", "L1-icache", "LLC", "dTLB", "iTLB", "branch", "node")
_OPERATIONS = (("load", "loads"), ("store", "stores"), ("prefetch", "prefetches"))


def _cache_events() -> dict[str, int]:
    """perf's names of the generic cache events: cache, operation and result in a byte each."""
    out = {}
    for cache, name in enumerate(_CACHES):
        for operation, (one, many) in enumerate(_OPERATIONS):
            out[f"{name}-{many}"] = cache | operation << 8
            out[f"{name}-{one}-misses"] = cache | operation << 8 | 1 << 16
    return out


_GENERIC: Mapping[str, tuple[int, int]] = {
    **{name: (bpf_syscall.PERF_HARDWARE, number) for number, name in enumerate(_HARDWARE)},
    **{name: (bpf_syscall.PERF_SOFTWARE, number) for number, name in enumerate(_SOFTWARE)},
    **{name: (bpf_syscall.PERF_HW_CACHE, number) for name, number in _cache_events().items()},
}


class Counter(NamedTuple):
    """How an event is opened on some CPUs (`cpus` None: on all): fields of perf_event_attr."""

    kind: int
    config: int
    config1: int = 0
    config2: int = 0
    flags: int = 0
    cpus: frozenset[int] | None = None

    def open(self, cpu: int) -> int:
        """The descriptor of the event on one CPU; raises OSError."""
        return bpf_syscall.perf_event_open(
            self.kind,
            self.config,
            cpu=cpu,
            config1=self.config1,
            config2=self.config2,
            flags=self.flags,
        )


class Event(NamedTuple):
    """An event by the name that it is shown with, and a counter for each kind of CPU."""

    name: str
    counters: tuple[Counter, ...]

    @property
    def hardware(self) -> bool:
        """Whether it is no event of the kernel's own."""
        return any(one.kind != bpf_syscall.PERF_SOFTWARE for one in self.counters)

    def on(self, cpu: int) -> Counter | None:
        """How it is opened on a CPU; None where its kind of PMU is not."""
        fits = (one for one in self.counters if one.cpus is None or cpu in one.cpus)
        return next(fits, None)


def core_pmus() -> dict[str, tuple[int, frozenset[int] | None]]:
    """PMUs of CPUs by name: their type, and which CPUs where there are several kinds."""
    found: dict[str, tuple[int, frozenset[int] | None]] = {}
    for name in _pmus():
        cpus = kernel.read_text(DEVICES / name / "cpus")
        number = kernel.read_text(DEVICES / name / "type")
        if number is None or (cpus is None and name != "cpu"):
            continue
        found[name] = (int(number), frozenset(kernel.parse_cpu_list(cpus)) if cpus else None)
    return found


def kinds() -> dict[int, str]:
    """The name of each CPU's PMU where there are several kinds, else nothing."""
    pmus = core_pmus()
    if len(pmus) < 2:
        return {}
    return {cpu: name for name, (_, cpus) in pmus.items() for cpu in cpus or ()}


def wanted(event_set: str, mode: str, custom: Sequence[str]) -> list[Event]:
    """The events of a set that need a counter; raises ProbeError for what is no event."""
    names = custom if event_set == CUSTOM else SETS[event_set]
    parsed = [parse(text, mode) for text in names]
    events = {event.name: event for event in parsed if event.name not in ALWAYS}
    if len(events) > MOST_EVENTS:
        why = f"{len(events)} events are too many to count at once"
        raise ProbeError(why, f"choose up to {MOST_EVENTS}")
    return list(events.values())


def split(text: str) -> list[str]:
    """The events of a list as perf writes it, where a comma may also stand between slashes."""
    parts, inside = [""], False
    for letter in text:
        inside ^= letter == "/"
        if letter == "," and not inside:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def parse(text: str, mode: str = "all") -> Event:
    """An event by its name, as "rNNN", "name=rNNN" or "PMU/term=number,.../", maybe with ":u".

    Raises ProbeError.
    """
    own, spec = _own_name(text.strip())
    spec, flags = _modifier(spec, mode)
    raw = re.fullmatch(r"r([0-9a-fA-F]{1,16})", spec)
    if raw:
        return Event(own or text.strip(), _on_cores(bpf_syscall.PERF_RAW, int(raw[1], 16), flags))
    if "/" in spec:
        return Event(own or text.strip(), _of_pmu(spec, flags))
    name = _ALIASES.get(spec, spec)
    generic = _GENERIC.get(name) or _GENERIC.get(_any_case(name))
    shown = own or text.strip().replace(spec, name, 1)
    if generic is None:
        return Event(shown, _named(spec, flags))
    kind, config = generic
    if kind == bpf_syscall.PERF_SOFTWARE:
        return Event(shown, (Counter(kind, config),))
    return Event(shown, _on_cores(kind, config, flags))


def _own_name(text: str) -> tuple[str | None, str]:
    """What stands before the "=" of "name=rNNN", and the rest."""
    found = re.fullmatch(r"([A-Za-z_][\w.-]*)=(.+)", text)
    return (found[1], found[2]) if found else (None, text)


def _any_case(name: str) -> str:
    return next((known for known in _GENERIC if known.lower() == name.lower()), name)


def _modifier(spec: str, mode: str) -> tuple[str, int]:
    """A spec without its modifier (":u", or "u" after the last slash), and the flags for it."""
    base, mark, letters = spec.rpartition("/") if "/" in spec else spec.partition(":")
    letters = letters.removeprefix(":")
    base += mark.replace(":", "")
    if not letters or spec.count("/") == 1:
        return spec if letters else base, MODES[mode]
    if set(letters) - set("uk"):
        why = f"{quote(letters)} is no modifier that counters have here"
        raise ProbeError(why, "write :u (user space) or :k (kernel)")
    chosen = {"u": "user", "k": "kernel"}.get(letters, "all")
    return base, MODES[chosen]


def _on_cores(kind: int, config: int, flags: int) -> tuple[Counter, ...]:
    """A generic or raw event, for each kind of CPU.

    Linux 5.13 takes the PMU in the upper half of a generic event's number; what is raw goes to
    the PMU itself. Arm's PMUs decide by the CPU and need neither for what is generic.
    """
    pmus = core_pmus()
    hybrid = {"cpu_core", "cpu_atom"} <= pmus.keys()
    if len(pmus) < 2:
        number = next(iter(pmus.values()))[0] if pmus and kind == bpf_syscall.PERF_RAW else kind
        return (Counter(number, config, flags=flags),)
    if kind == bpf_syscall.PERF_RAW:
        return tuple(Counter(number, config, 0, 0, flags, cpus) for number, cpus in pmus.values())
    if not hybrid:
        return (Counter(kind, config, flags=flags),)
    return tuple(
        Counter(kind, config | number << 32, 0, 0, flags, cpus) for number, cpus in pmus.values()
    )


def _pmus() -> list[str]:
    try:
        return sorted(os.listdir(DEVICES))
    except OSError:
        return []


def _events_of(pmu: str) -> list[str]:
    try:
        names = os.listdir(DEVICES / pmu / "events")
    except OSError:
        return []
    return sorted(name for name in names if "." not in name)


def _named(name: str, flags: int) -> tuple[Counter, ...]:
    """An event that the PMUs of the CPUs have under this name."""
    pmus = [pmu for pmu in core_pmus() if name in _events_of(pmu)]
    if not pmus:
        known = {*_GENERIC, *_ALIASES, *(e for pmu in core_pmus() for e in _events_of(pmu))}
        why = f"{quote(name)} is no event of perf's"
        raise ProbeError(why, did_you_mean(near(name, known), "see perf list, or write rNNN"))
    return tuple(counter for pmu in pmus for counter in _of_pmu(f"{pmu}/{name}/", flags))


def _of_pmu(spec: str, flags: int) -> tuple[Counter, ...]:
    """ "PMU/event-name/", "PMU/event=0x3c,umask=0/": the PMU's own event."""
    pmu, _, rest = spec.partition("/")
    terms, slash, after = rest.rpartition("/")
    if not slash or after:
        raise ProbeError(f"{quote(spec)} has no second slash", "write PMU/event=0x3c,umask=0x00/")
    number = kernel.read_text(DEVICES / pmu / "type") if re.fullmatch(r"[\w.-]+", pmu) else None
    if number is None and pmu == "cpu" and len(core_pmus()) > 1:
        return tuple(one for name in core_pmus() for one in _of_pmu(f"{name}/{terms}/", flags))
    if number is None:
        known = [name for name in _pmus() if (DEVICES / name / "format").is_dir()]
        why = f"this machine has no PMU {quote(pmu)}"
        otherwise = f"there are {', '.join(known)}" if known else "see perf list"
        raise ProbeError(why, did_you_mean(near(pmu, known), otherwise))
    if kernel.read_text(DEVICES / pmu / "cpumask") is not None:
        why = f"{pmu} counts for a whole socket, so no process can be told from another"
        raise ProbeError(why, f"perf stat -a -e {spec} counts it")
    words = [0, 0, 0]
    for term in filter(None, _expanded(pmu, terms)):
        _put(pmu, term, words)
    cpus = core_pmus().get(pmu, (0, None))[1]
    # Only PMUs of CPUs tell user space from the kernel; others refuse to be asked.
    kept = flags if pmu in core_pmus() else 0
    return (Counter(int(number), words[0], words[1], words[2], kept, cpus),)


def _expanded(pmu: str, terms: str) -> list[str]:
    """Terms, an event's name replaced by what it stands for."""
    out: list[str] = []
    for term in terms.split(","):
        if "=" in term or not re.fullmatch(r"[\w.-]+", term):
            out.append(term)
            continue
        text = kernel.read_text(DEVICES / pmu / "events" / term)
        if text is None and not (DEVICES / pmu / "format" / term).exists():
            known = _events_of(pmu)
            why = f"{pmu} has no event {quote(term)}"
            otherwise = f"it has {', '.join(known[:6])}" if known else f"write {pmu}/event=0x3c/"
            raise ProbeError(why, did_you_mean(near(term, known), otherwise))
        out += text.split(",") if text is not None else [term]
    return out


def _put(pmu: str, term: str, words: list[int]) -> None:
    """Put one "field=number" where the PMU's format says, "config:0-7,32-35" for example."""
    field, _, number = term.partition("=")
    try:
        value = int(number or "1", 0)
    except ValueError:
        why = f"{quote(number)} in {quote(term)} is no number"
        raise ProbeError(why, f"write {field}=0x1") from None
    direct = {"config": 0, "config1": 1, "config2": 2}
    if field in direct:
        words[direct[field]] |= value & (1 << 64) - 1
        return
    text = kernel.read_text(DEVICES / pmu / "format" / field) if _is_word(field) else None
    place = re.fullmatch(r"(config[12]?):([\d,-]+)", text or "")
    if place is None:
        known = [path.name for path in (DEVICES / pmu / "format").glob("*")]
        why = f"{pmu} has no field {quote(field)}"
        otherwise = f"it has {', '.join(sorted(known))}" if known else "write config=0x..."
        raise ProbeError(why, did_you_mean(near(field, known), otherwise))
    bits = kernel.parse_cpu_list(place[2])
    if value < 0 or value >> len(bits):
        why = f"{quote(term)} does not fit: {pmu}'s {field} has {len(bits)} bits"
        raise ProbeError(why, f"the largest is {(1 << len(bits)) - 1:#x}")
    for at, bit in enumerate(bits):
        words[direct[place[1]]] |= (value >> at & 1) << bit


def _is_word(text: str) -> bool:
    return re.fullmatch(r"[\w-]+", text) is not None


def check_events(value: object) -> list[str]:
    """A user's events, each by itself; raises ProbeError for what is none."""
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise ProbeError(f"{quote(str(value))} is no list of events", "see perf list")
    texts = [part for text in cast(Iterable[str], value) for part in split(text)]
    if not texts:
        raise ProbeError("no event was named", "see perf list")
    wanted(CUSTOM, "all", texts)
    return texts
