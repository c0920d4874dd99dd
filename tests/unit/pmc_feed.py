# SPDX-License-Identifier: Apache-2.0
"""A PMC pane that is fed with made-up samples."""

from __future__ import annotations

from dataclasses import replace

from probes.core.frame import Frame, Host
from probes.core.readings import Reading
from probes.core.sample import Sample
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes
from tests.pilot.fake import PROCESSES, FakeSource
from tests.pilot.fake_pmc import FakePmc
from tui.panes.pmc import PmcPane
from tui.shared.styled_lines import Line, line_text


class Feed:
    """Feeds a pane with made-up samples, or with those that it is given."""

    def __init__(self, cpus: int = 8, sockets: int = 1) -> None:
        self.pane = PmcPane()
        self.source = FakeSource()
        self.pane.source = self.source
        self.fake = FakePmc(PROCESSES, cpus, sockets)
        self.tick = 0
        self.last: Frame | None = None

    def __call__(self, ticks: int = 1, sample: Sample | None = None) -> None:
        for _ in range(ticks):
            self.tick += 1
            frame = Frame(
                time=1e9 + self.tick,
                mono=float(self.tick),
                interval=1.0,
                host=Host(),
                samples={"pmc": sample or self.fake.sample(self.tick)},
            )
            self.pane.update(self.last, frame)
            self.last = frame

    def lines(self, width: int = 120, height: int = 30) -> list[Line]:
        return self.pane.lines(width, height, focused=True)

    def texts(self, width: int = 120, height: int = 30) -> list[str]:
        return [line_text(line).rstrip() for line in self.lines(width, height)]

    def heading(self, width: int = 120) -> str:
        texts = self.texts(width)
        return next(t for t in texts if t.split()[:2] in (["pid", "process"], ["counter", "/s"]))

    def columns(self, width: int = 120) -> str:
        return " ".join(self.heading(width).replace("▾", "").split())

    def row(self, word: str, width: int = 120) -> dict[str, str]:
        found = [text.split() for text in self.texts(width)[6:] if f" {word} " in text]
        return dict(zip(self.columns(width).split(), found[0], strict=True))

    def headline(self) -> str:
        return line_text(tuple(self.pane.headline()))


def counted(
    counts: dict[str, int], share: float = 1.0, clock: int = 500_000_000, **more: object
) -> list[PmcSample]:
    """Two Samples a second apart, between which process 7 and CPU 0 counted this."""
    nothing = PmcSample(
        state="on",
        generation=1,
        hardware=True,
        events=tuple(counts),
        tasks={7: TaskTimes(0, 0, 0, 0)},
        readings={(7, event): Reading(0, 0, 0) for event in counts},
        cpus={0: CpuTimes(0, 0, 0, 0)},
        cpu_readings={(0, event): Reading(0, 0, 0) for event in counts},
        comms={7: "postgres"},
    )
    ran = {event: Reading(n, clock, int(clock * share)) for event, n in counts.items()}
    then = replace(
        nothing,
        tasks={7: TaskTimes(clock, 50, 3, 20_000_000)},
        readings={(7, event): reading for event, reading in ran.items()},
        cpus={0: CpuTimes(clock, 10**9 - clock, 90, 20_000_000)},
        cpu_readings={(0, event): reading for event, reading in ran.items()},
    )
    return [replace(sample, **more) for sample in (nothing, then)]  # type: ignore[arg-type]


def feed_counted(feed: Feed, *args: object, **more: object) -> None:
    for sample in counted(*args, **more):  # type: ignore[arg-type]
        feed(1, sample)


BASE = {
    "cycles": 1_500_000_000,
    "instructions": 600_000_000,
    "cache-misses": 18_000_000,
    "branches": 100_000_000,
    "branch-misses": 4_000_000,
    "page-faults": 12,
}
