# SPDX-License-Identifier: Apache-2.0
"""The counter probe against what the kernel itself says of a process, of all of its threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

from probes.core.frame import Filters
from probes.core.readings import Reading
from probes.pmc.process_rows import NO_READING, NO_TIMES
from probes.pmc.sample import PmcSample, TaskTimes
from tests.kernel.harness import Live, Work, status_of

PATHS = {"pmc": "probes.pmc.probe:PmcProbe"}


class Truth(NamedTuple):
    """What /proc says of a process that waits: page faults, switches, ns run and waited."""

    faults: int
    switches: int
    clock: int
    wait: int


def truth(pid: int) -> Truth:
    """What a process did so far; its threads must not have ended, nor run."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    switches = clock = wait = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = status_of(int(task.name))
        switches += int(status["voluntary_ctxt_switches"])
        switches += int(status["nonvoluntary_ctxt_switches"])
        ran, waited, _ = (task / "schedstat").read_text().split()
        clock += int(ran)
        wait += int(waited)
    return Truth(int(stat[7]) + int(stat[9]), switches, clock, wait)


class Counting(Live):
    """The counter probe in this process."""

    def __init__(self, filters: Filters | None = None, **options: Any) -> None:
        interval = options.pop("interval", 0.1)
        super().__init__(
            "pmc", paths=PATHS, interval=interval, filters=filters, options={"pmc": options}
        )

    def pmc(self) -> PmcSample:
        """The settled counters."""
        return cast(PmcSample, self.settled().samples["pmc"])

    def set(self, option: str, value: object, **fields: object) -> PmcSample:
        """Change an option; the first Sample that has these fields."""
        self.source.set_option("pmc", option, value)

        def judge(sample: PmcSample) -> bool:
            return all(getattr(sample, name) == wanted for name, wanted in fields.items())

        frame = self.wait(
            f"{fields} after {option}={value}", lambda f: judge(cast(PmcSample, f.samples["pmc"]))
        )
        return cast(PmcSample, frame.samples["pmc"])


class Load(Work):
    """tests/workloads/counters.c: it works in rounds."""

    def __init__(self, program: Path, what: str, **options: Any) -> None:
        super().__init__(program, what, **options)

    def begin(self, n: int) -> None:
        """Let it do `n` of what it does."""
        self.stdin.write(f"{n}\n")
        self.stdin.flush()

    def round(self, n: int) -> None:
        """Let it do that, and wait until it is done."""
        self.begin(n)
        self.done()


class Round(NamedTuple):
    """What a process did between two Samples: by the probe, and by /proc."""

    found: TaskTimes
    readings: dict[str, Reading]
    truth: Truth
    before: PmcSample
    after: PmcSample


def gained(before: PmcSample, after: PmcSample, pid: int) -> tuple[TaskTimes, dict[str, Reading]]:
    """What a process gained between two Samples."""
    assert before.generation == after.generation
    old, new = (sample.tasks.get(pid, NO_TIMES) for sample in (before, after))
    wait = None if new.wait is None else new.wait - (old.wait or 0)
    times = TaskTimes(
        new.clock - old.clock, new.switches - old.switches, new.migrations - old.migrations, wait
    )
    readings = {}
    for event in after.events:
        a, b = (sample.readings.get((pid, event), NO_READING) for sample in (before, after))
        readings[event] = Reading(b.value - a.value, b.enabled - a.enabled, b.running - a.running)
    return times, readings


def observe(live: Counting, load: Load, n: int) -> Round:
    """One round of a workload that has had one before."""
    load.round(2)
    before, old = live.pmc(), truth(load.pid)
    load.round(n)
    after, new = live.pmc(), truth(load.pid)
    real = Truth(*(b - a for a, b in zip(old, new, strict=True)))
    times, readings = gained(before, after, load.pid)
    print(f"{n}: found {times} {readings}, true {real}")
    return Round(times, readings, real, before, after)
