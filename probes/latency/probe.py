# SPDX-License-Identifier: Apache-2.0
"""The latency probe: how long functions, and the time between events, take.

From kernel to cell: `latency.bpf.c` puts durations into a histogram for each target and into
rows of (process, target); what was loaded together is a `Unit`, so that a target added
later disturbs no other; `LatencyProbe.read` makes Targets of their histograms.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

from probes.bpf.control_page import FILTER_HELPERS, FILTER_OFFSETS, filter_defines
from probes.bpf.histograms import slices_for
from probes.bpf.plan import Loaded, Params, Plan
from probes.bpf.row_table import ROW_MAPS, SeenRow, name_of_comm, text_of
from probes.bpf.thread_places import sets_of_places
from probes.budget.attach_overhead import a_call
from probes.budget.policy import Part
from probes.core import kernel
from probes.core.copies import Copies
from probes.core.errors import ProbeError
from probes.core.frame import Filters
from probes.core.process_keys import Processes
from probes.core.sample import Duty, Estimate, Histogram, Sample
from probes.host.traced_files import FileWatch
from probes.ipc.messages import BurstReport
from probes.latency.contract import latency_contract
from probes.latency.degradation import Ladders
from probes.latency.facts import LatencyFacts, TargetFacts
from probes.latency.floors import measured
from probes.latency.loaded_group import Unit
from probes.latency.planner import DEFAULTS, MOST_TARGETS, parts, watches_calls
from probes.latency.requests import wishes_of
from probes.latency.sample import LatencySample, Spent, Target
from probes.latency.target_bursts import TargetBursts
from probes.probe import Probe
from probes.symbols import target_spec

MOST_ROWS = 20_000
"""Most (target, process) pairs that are remembered; the newest stay."""
MOST_TEXT = 12_000
"""Characters of targets that one message asks for; the answer repeats them."""
MOST_SPECS = 1000
"""Most targets, over all loads."""
THREADS, PAIRS = 4096, 16384
"""Threads inside of traced functions, and begun pairs of events, at the same time."""
IN_BURSTS = "attached in bursts of {} ms: a call that takes longer is not seen"
NO_BURSTS = "it cannot be attached in bursts here"
MORE = "--budget 0 attaches it always, B does for a minute"
ONLY_COUNTED = "only counted, to stay within the budget: --budget 0 times it again"
HOLD_CPU = {
    "PT_PREEMPT_DISABLE": "bpf_preempt_disable",
    "PT_PREEMPT_ENABLE": "bpf_preempt_enable",
}
"""What programs of uprobes call to keep their CPU, from Linux 6.10 on."""
NOTHING_SPENT = Spent(0, 0)
_NEW = tuple.__new__
TEXT_WORDS = 8
"""Words of a row, beyond the 32 bytes that each has, for a text that tells calls apart."""


def geometry(cpus: int, targets: int) -> dict[str, int]:
    """Sizes by the numbers of possible CPUs and of targets, behind which one is measured."""
    rows = 1024
    while rows > 128 and rows * cpus > 16384:
        rows //= 2
    hists = targets + 1
    return {"PT_CPUS": cpus, "PT_ROWS": rows, "PT_SLICES": slices_for(cpus), "PT_HISTS": hists}


class LatencyProbe(Probe):
    """Durations by target.

    Options: `targets` (all of them), `add` and `remove` (one), `follow` (attach one anew, to the
    file that its path leads to now: its counts begin again), `force` (return probes also where
    they could harm the program).
    """

    name: ClassVar[str] = "latency"
    options: ClassVar[Mapping[str, Any]] = {
        "targets": (),
        "add": None,
        "remove": None,
        "follow": None,
        "force": False,
    }
    sample_type: ClassVar[type[Sample]] = LatencySample

    def __init__(self) -> None:
        super().__init__()
        self.meter.usual_runs = 2.0
        self.generation = 0
        self.by_default = True
        self._force = False
        self._specs: list[str] = list(DEFAULTS)
        self._units: list[Unit] = []
        self._targets: dict[str, Target] = {}
        self._processes: dict[tuple[str, int], Spent] = {}
        self._copies: Copies[tuple[str, int], Spent] = Copies()
        self._comms: dict[int, str] = {}
        self._known = Processes()
        self._texts: dict[tuple[str, str], Spent] = {}
        self._ladders = Ladders()
        self._files = FileWatch()
        self._counting: float | None = None
        self._comms_told: Mapping[int, str] | None = None
        self._forget_all()

    @property
    def targets(self) -> Mapping[str, Target]:
        """The targets as they are known now."""
        return self._targets.copy()

    @staticmethod
    def plan(params: Params) -> Plan:
        """Programs for each target that this machine has; the others are in the facts."""
        wishes, targets, errors = wishes_of(params)
        sizes = geometry(kernel.possible_cpus(), len(targets))
        if any(facts["by_text"] for facts in targets):
            sizes["PT_WIDE"] = TEXT_WORDS
        floors = {facts["floor"] for facts in targets if _is_timed(facts)}
        attach = [one for w in wishes for one in w.attach]
        texts = {"USE_TEXT": 1} if "PT_WIDE" in sizes else {}
        return Plan(
            source="latency/latency.bpf.c",
            attach=attach,
            maps=["control", *ROW_MAPS, "hists", "peaks"],
            defines={
                **sizes,
                **filter_defines(),
                **parts(attach, floors),
                **texts,
                "PT_THREADS": THREADS,
                "PT_PAIRS": PAIRS,
                "PT_SETS": sets_of_places(),
            },
            helpers=FILTER_HELPERS,
            offsets={
                **FILTER_OFFSETS,
                "OFF_PID": "task_struct.pid",
                # Linux 5.14 renamed it.
                "OFF_STATE_NEW": "task_struct.__state?",
                "OFF_STATE_OLD": "task_struct.state?",
            },
            functions=HOLD_CPU if kernel.preempts() else {},
            facts={**sizes, "targets": targets, "errors": errors},
            calibrate=measured(floors, len(targets)),
            gauge=a_call if any(map(watches_calls, attach)) else None,
        )

    @staticmethod
    def contract(before: Sample | None, after: Sample, seconds: float) -> dict[str, Any]:
        """`targets` of a stream object."""
        return latency_contract(
            cast("LatencySample | None", before), cast(LatencySample, after), seconds
        )

    def params(self) -> Params:
        """The targets that are still to be loaded, as many as go into one message."""
        wanted: list[str] = []
        size = 0
        for spec in self._specs:
            size += len(spec) * (self._targets[spec].state == "starting")
            if len(wanted) >= MOST_TARGETS or (size > MOST_TEXT and wanted):
                break
            if self._targets[spec].state != "starting":
                continue
            if self._ladders.step(spec).on:
                # What counts in bursts has a control page of its own, and is loaded alone.
                if wanted:
                    continue
                wanted = [spec]
                break
            wanted.append(spec)
        counted = self._ladders.counted(wanted)
        pid = self.filters.pid
        return {
            "targets": wanted,
            "pid": pid,
            "started": self.started,
            "counted": counted,
            "force": self._force,
        }

    def adopt(self, loaded: Loaded) -> None:
        """Take over targets beside those that run already."""
        about = loaded.facts_as(LatencyFacts)
        specs_of = {target.slot: target.spec for target in about.targets}
        errors = {spec: (why, fix) for spec, why, fix in about.errors}
        errors |= {specs_of[slot]: words for slot, words in loaded.failures.items()}
        sampled = len(specs_of) == 1 and self._ladders.step(*specs_of.values()).on
        by_text = any(target.by_text for target in about.targets)
        bursts = TargetBursts(by_text) if sampled else None
        unit = Unit(loaded, about, (self.filters, self.started), self.meter, bursts)
        now = time.monotonic()
        self._counting = self._counting or now
        for slot, facts in list(unit.slots.items()):
            spec = facts.spec
            if spec in errors or spec not in self._targets:
                unit.drop(slot)
                continue
            self._ladders.learn(spec, facts, about.outside)
            step = self._ladders.step(spec)
            if bool(step.on) is (bursts is None):
                unit.drop(slot)  # the level has changed meanwhile: it is loaded once more
                continue
            why, fix = facts.why, facts.fix
            if step.on:
                why, fix = IN_BURSTS.format(step.on), MORE
                unit.attach_in(slot, step)
            elif self._ladders.level(spec):
                why, fix = ONLY_COUNTED, None
            self._targets[spec] = Target(
                spec=spec,
                state="on",
                why=why,
                fix=fix,
                mechanism=facts.mechanism,
                functions=facts.functions,
                counts_only=facts.counts_only,
                floor=about.floors.get(facts.floor) if facts.is_timed else None,
                unit=facts.unit,
                by_text=facts.by_text,
                began=now - self._counting,
                duty=Duty() if step.on else None,
            )
        for spec, (why, fix) in errors.items():
            self._failed(spec, why, fix)
        self._units.append(unit)
        self._files.look_soon()
        self._close_empty()
        # What did not go into the message is asked for next.
        self.meter.outdated = any(t.state == "starting" for t in self._targets.values())

    def refuse(self, why: str, fix: str) -> bool:
        """Loading failed as a whole: targets that run already go on. True if there are any."""
        for spec, target in list(self._targets.items()):
            if target.state == "starting":
                self._targets[spec] = replace(target, state="failed", why=why, fix=fix)
        self.meter.outdated = False
        return bool(self._units)

    def release(self) -> None:
        """Detach everything; counting starts from zero when it is switched on again."""
        for unit in self._units:
            unit.close()
        self._units = []
        self.meter.switching = 0.0
        self.meter.release()
        self.generation += 1
        self._counting = None
        self._forget_all()

    def read(self, now: float) -> LatencySample:
        """All that was measured until now."""
        self.drain()
        self._look_at_files(now)
        self.meter.per_call = max(self._per_call().values(), default=0.0)
        if self._comms_told is None:
            self._comms_told = self._comms.copy()
        return LatencySample(
            state="on",
            generation=self.generation,
            lost=self.meter.missed(),
            cost=self.meter.cost(now),
            notes=self.meter.notes,
            targets=self._targets.copy(),
            processes=self._copies.of(self._processes),
            comms=self._comms_told,
            texts=self._texts.copy(),
            estimated_processes=self._estimated(by_text=False),
            estimated_texts=self._estimated(by_text=True),
        )

    def _estimated(self, by_text: bool) -> dict[tuple[str, Any], Estimate]:
        """Calls that bursts stand for, by target and process, or text."""
        return {
            (facts.spec, who): estimate
            for unit in self._units
            if unit.bursts is not None
            for facts in unit.slots.values()
            if facts.by_text is by_text
            for who, estimate in unit.bursts.rows.items()
        }

    def drain(self) -> None:
        """Add what the maps hold to the totals."""
        for unit in self._units:
            self._charge(unit)
            with unit.hists.reading(unit.control):
                if unit.bursts is not None:
                    for slot, facts in unit.slots.items():
                        self.meter.events += unit.look(slot, facts.counts_only)
                    continue
                counters = unit.hists.counters()
                for slot, facts in unit.slots.items():
                    self._update(unit, slot, facts.spec, counters[slot])
        if len(self._processes) > MOST_ROWS:
            self._processes = dict(list(self._processes.items())[-MOST_ROWS // 2 :])
            self._copies.replaced()
            pids = {pid for _, pid in self._processes}
            pids |= {pid for _, pid in self._estimated(by_text=False)}
            self._comms = {pid: comm for pid, comm in self._comms.items() if pid in pids}
            self._comms_told = None
        self._known.forget(self._comms)
        if len(self._texts) > MOST_ROWS:
            self._texts = dict(list(self._texts.items())[-MOST_ROWS // 2 :])

    def wait_fds(self) -> Sequence[int]:
        """The tables of rows may run full."""
        return [unit.rows.wait_fd for unit in self._units]

    def set_filters(self, filters: Filters, started: int | None = None) -> None:
        """Change what is measured from the next call on; raises ProbeError."""
        for unit in self._units:
            unit.control.set_filters(filters, started)
        self.filters, self.started = filters, started

    def check_option(self, option: str, value: Any) -> None:
        """Raises ProbeError for what is no target, or is there already."""
        if option == "force":
            if not isinstance(value, bool):
                raise ProbeError("force of the latency probe is not true or false", "give one")
            return
        for text in _texts(option, value):
            spec = target_spec.parse(text).text
            if option == "add" and spec in self._targets:
                raise ProbeError(f"{spec} is traced already", "see its row")
            if option == "add" and len(self._specs) >= MOST_SPECS:
                raise ProbeError(f"{MOST_SPECS} targets are the most", "remove some")
            if option in ("remove", "follow") and spec not in self._targets:
                raise ProbeError(f"{spec} is not among the targets", "see the pane's rows")

    def set_option(self, option: str, value: Any) -> bool:
        """Change the targets; True if there are new ones to load."""
        self.check_option(option, value)
        if option == "force":
            self._force = value
            return False
        if option == "targets":
            return self._replace(target_spec.parse(text).text for text in value)
        spec = target_spec.parse(value).text
        if option == "add":
            self._specs.append(spec)
            self._targets[spec] = Target(spec=spec)
            return True
        self._remove(spec)
        if option == "follow":
            self._targets[spec] = Target(spec=spec)
        else:
            self._specs.remove(spec)
            del self._targets[spec]
        return option == "follow"

    def parts(self) -> Sequence[Part]:
        """The targets."""
        seen = {facts.spec: unit.seen.n for unit, facts in self._sampled()}
        parts, self.meter.outside = self._ladders.parts(self._targets, seen)
        # All of them together cost a call what one of them does.
        watching = self._per_call()
        each = max(watching.values(), default=0.0) / max(1, len(watching))
        return [part._replace(per_call=each) if part.what in watching else part for part in parts]

    def _per_call(self) -> dict[str, float]:
        """What every call of the machine pays, in ns, by each target that makes it pay."""
        return {
            facts.spec: unit.per_call
            for unit in self._units
            for facts in unit.slots.values()
            if facts.watches
        }

    def give_up(self, what: str, level: int, why: str, fix: str) -> bool:
        """Count the calls of a target only, or detach it; or back."""
        if what not in self._targets:
            return False
        self._ladders.put(what, level)
        step = self._ladders.step(what)
        for unit, facts in self._sampled():
            if facts.spec == what and step.on:
                unit.attach_in(facts.slot, step)
                words = IN_BURSTS.format(step.on)
                self._targets[what] = replace(self._targets[what], why=words)
                return False
        return self._restart(what, why, fix)

    def _restart(self, what: str, why: str, fix: str) -> bool:
        """Detach a target, and have it loaded anew as its level says: False where that is not."""
        self._drop(what)
        detached = self._ladders.is_detached(what)
        self._targets[what] = (
            Target(spec=what, state="failed", why=why, fix=fix, given_up=True)
            if detached
            else Target(spec=what)
        )
        self._close_empty()
        return not detached

    def _sampled(self) -> list[tuple[Unit, TargetFacts]]:
        """What is attached in bursts."""
        sampled = [unit for unit in self._units if unit.bursts is not None]
        return [(unit, facts) for unit in sampled for facts in unit.slots.values()]

    def burst(self, report: BurstReport) -> None:
        """Take in what a target's burst counted."""
        found = [(u, facts) for u, facts in self._sampled() if u.number == report.unit]
        if not found or report.kind not in ("burst", "failed"):
            return
        unit, spec = found[0][0], found[0][1].spec
        if report.kind == "failed":
            self._ladders.no_bursts(spec)
            self.meter.outdated |= self._restart(spec, NO_BURSTS, "")
            return
        self.drain()
        price = self._ladders.outside(spec) + self.meter.usual_runs * self.meter.ns_of_run()
        unit.take(report, price)
        assert unit.bursts is not None
        self.meter.switching = sum([one.switching for one in self._units])
        self._targets[spec] = replace(
            self._targets[spec],
            in_bursts=unit.seen,
            duty=unit.bursts.duty,
            estimated=unit.bursts.estimated,
        )

    def uncounted(self, now: float) -> float:
        """None."""
        return 0.0

    def given_up(self) -> str | None:
        """How many targets are."""
        return self._ladders.given_up()

    def _replace(self, wanted: Iterable[str]) -> bool:
        """Time these targets alone; True if any is to be loaded.

        Targets that stay and run as asked keep their programs and counts; all others are
        detached, so that no program counts for a target that is not there.
        """
        self.by_default = False
        specs_wanted = list(dict.fromkeys(wanted))
        kept: dict[str, Target] = {}
        for spec, target in list(self._targets.items()):
            if spec in specs_wanted and target.state == "on" and not self._ladders.level(spec):
                kept[spec] = target
            else:
                self._remove(spec)
        self._specs = specs_wanted
        self._targets = {spec: kept.get(spec, Target(spec=spec)) for spec in specs_wanted}
        return len(kept) < len(specs_wanted)

    def _forget_all(self) -> None:
        self._ladders.clear()
        self.meter.events = 0
        self._targets = {spec: Target(spec=spec) for spec in self._specs}
        self._processes, self._comms, self._texts = {}, {}, {}
        self._copies.replaced()
        self._comms_told = None

    def _failed(self, spec: str, why: str, fix: str) -> None:
        if spec not in self._targets:
            return
        if self.by_default and spec in DEFAULTS:
            # Nobody asked for it, and this kernel has it not.
            self._specs.remove(spec)
            del self._targets[spec]
            return
        self._targets[spec] = Target(spec=spec, state="failed", why=why, fix=fix)

    def _remove(self, spec: str) -> None:
        """Detach a target and forget what it counted."""
        self._processes = {k: v for k, v in self._processes.items() if k[0] != spec}
        self._copies.replaced()
        self._texts = {k: v for k, v in self._texts.items() if k[0] != spec}
        self._ladders.drop(spec)
        self._drop(spec)
        self._close_empty()

    def _look_at_files(self, now: float) -> None:
        """Note which of the traced files were replaced or deleted."""
        found = self._files.news(now, lambda: (f for u in self._units for f in u.files.values()))
        if not found:
            return
        for unit in self._units:
            for slot, facts in unit.slots.items():
                old, state = self._targets[facts.spec], found.get(unit.files[slot])
                if old.state == "on" and unit.files[slot] in found and old.file != state:
                    self._targets[facts.spec] = replace(old, file=state)

    def _drop(self, spec: str) -> None:
        """Detach a target."""
        for unit in self._units:
            for slot, facts in list(unit.slots.items()):
                if facts.spec == spec:
                    unit.drop(slot)

    def _close_empty(self) -> None:
        for unit in [unit for unit in self._units if not unit.slots]:
            unit.close()
            self._units.remove(unit)
        self.meter.switching = sum([unit.switching for unit in self._units])

    def _charge(self, unit: Unit) -> None:
        """Add up by process, or by text, what rows counted."""
        table = unit.rows
        table.renumber(self._known)
        for noted in table.lists(unit.control):
            left = table.meet(self._add_rows(unit, noted), self._known)
            table.look_again(self._add_rows(unit, left))

    def _add_rows(self, unit: Unit, noted: list[int]) -> list[int]:
        """Add what these rows counted since the last read; returns those that were not added."""
        comms, processes, slots = self._comms, self._processes, unit.slots
        known, comm_of = processes.get, comms.get
        left: list[int] = []
        keys: list[tuple[str, int]] = []
        for entry, row, (count, total, owner, _) in unit.rows.read(noted):
            if row is None or owner != row.owner or count == row.count:
                left.append(entry)
                continue
            more, longer = count - row.count, total - row.total
            row.count, row.total = count, total
            key = row.key
            if key is None:
                if row.what not in slots:
                    continue
                key = _put_key(row, slots[row.what])
            if unit.bursts is not None:
                unit.bursts.see(key[1], more, longer)
            if row.comm is None:
                if unit.bursts is None:
                    before = self._texts.get(key, NOTHING_SPENT)
                    self._texts[key] = Spent(before.n + more, before.total + longer)
                continue
            if unit.bursts is None:
                if (old := known(key)) is not None:
                    more, longer = old[0] + more, old[1] + longer
                processes[key] = _NEW(Spent, (more, longer))
                keys.append(key)
            if comm_of(row.process) != row.comm:
                self._known.name(comms, row.process, row.comm, entry)
                self._comms_told = None
        self._copies.set(keys)
        return left

    def _update(self, unit: Unit, slot: int, spec: str, counters: tuple[int, int, int]) -> None:
        old = self._targets[spec]
        count, missed, overflow = counters
        if (count, missed, overflow) == (old.histogram.n, old.missed, old.overflow):
            return
        if old.counts_only:
            histogram = Histogram({}, count, 0)
        else:
            histogram = unit.hists.read(slot, old.histogram)
        # What a target counted stays counted when it goes.
        self.meter.events += max(0, histogram.n - old.histogram.n)
        self._targets[spec] = replace(old, histogram=histogram, missed=missed, overflow=overflow)


def _put_key(row: SeenRow, facts: TargetFacts) -> tuple[str, Any]:
    """Say under which key a row's durations are added up, and what its process is called."""
    key: tuple[str, Any]
    if facts.by_text:
        key = row.key = facts.spec, text_of(row.name)
        row.comm = None
    else:
        key = row.key = facts.spec, row.process
        # Each CPU's idle thread has a name of its own.
        row.comm = name_of_comm(row.name) if row.process else "swapper"
    return key


def _texts(option: str, value: Any) -> Iterable[str]:
    """The targets that an option's value names; raises ProbeError for values of other types."""
    texts = value if option == "targets" else [value]
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        kind = "a list of targets" if option == "targets" else "a target"
        raise ProbeError(f"{option} of the latency probe is not {kind}", f"give {kind} as text")
    if len(texts) > MOST_SPECS:
        raise ProbeError(f"{MOST_SPECS} targets are the most", "trace fewer")
    return texts


def _is_timed(facts: Mapping[str, Any]) -> bool:
    """Whether a target has durations: not where events are counted, or values measured."""
    return bool(not facts["counts_only"] and facts["unit"])
