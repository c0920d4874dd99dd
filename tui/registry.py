# SPDX-License-Identifier: Apache-2.0
"""All probes, one line each. Keys, footer, palette, command line, stream, replay, export and the
contract tests are derived from this table.

Modules are named here, not imported: the broker must not load Textual, and neither must the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from probes.core.sample import Sample

if TYPE_CHECKING:
    from probes.core.schema import Schema
    from probes.probe import Probe
    from probes.report.summary import Summary
    from tui.agent.metrics.probe_collector import Collector
    from tui.agent.metrics.top_series import Crowd
    from tui.export.section import Section
    from tui.panes.base import Pane


@dataclass(frozen=True, slots=True)
class Entry:
    """One probe, its Sample and its pane, as "module:attribute"; `key` toggles it.

    A reader of recordings imports the Sample's module, but not the probe's.
    `section_path` names what fills the probe's part of a page, `metrics_path` its collector of
    metrics; for most probes what the Sample's schema declares is enough.
    """

    key: str
    name: str
    title: str
    sample_path: str
    probe_path: str
    pane_path: str
    on_at_start: bool = True
    section_path: str = "tui.export.declared:fill"
    metrics_path: str = "tui.agent.metrics.table_counters:TableCounters"

    def sample_class(self) -> type[Sample]:
        """The class of its Samples."""
        return cast("type[Sample]", _load(self.sample_path))

    def probe_class(self) -> type[Probe]:
        """The probe's class, imported on use."""
        return cast("type[Probe]", _load(self.probe_path))

    def pane_class(self) -> Callable[[], Pane]:
        """The pane's class, imported on use."""
        return cast("Callable[[], Pane]", _load(self.pane_path))

    def fill_section(self) -> Callable[[Summary, Mapping[str, Any], Section], None]:
        """What fills the probe's part of a page, imported now."""
        return cast("Callable[[Summary, Mapping[str, Any], Section], None]",
                    _load(self.section_path))  # fmt: skip

    def collector_class(self) -> Callable[[str, Schema, Crowd], Collector]:
        """The class of its collector of metrics, imported now."""
        return cast("Callable[[str, Schema, Crowd], Collector]", _load(self.metrics_path))


REGISTRY: tuple[Entry, ...] = (
    Entry(
        "1",
        "syscalls",
        "System calls",
        "probes.syscalls.sample:SyscallSample",
        "probes.syscalls.probe:SyscallProbe",
        "tui.panes.syscalls:SyscallPane",
        section_path="tui.export.syscalls:fill",
        metrics_path="tui.agent.metrics.syscall_counters:SyscallCounters",
    ),
    Entry(
        "2",
        "execs",
        "Execs",
        "probes.execs.sample:ExecSample",
        "probes.execs.probe:ExecProbe",
        "tui.panes.execs:ExecPane",
        section_path="tui.export.execs:fill",
        metrics_path="tui.agent.metrics.exec_counters:ExecCounters",
    ),
    Entry(
        "3",
        "latency",
        "Latency",
        "probes.latency.sample:LatencySample",
        "probes.latency.probe:LatencyProbe",
        "tui.panes.latency:LatencyPane",
        section_path="tui.export.latency:fill",
        metrics_path="tui.agent.metrics.latency_targets:TargetCounters",
    ),
    Entry(
        "4",
        "pmc",
        "PMC",
        "probes.pmc.sample:PmcSample",
        "probes.pmc.probe:PmcProbe",
        "tui.panes.pmc:PmcPane",
        section_path="tui.export.pmc:fill",
        metrics_path="tui.agent.metrics.pmc_counters:PmcCounters",
    ),
)


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def names() -> tuple[str, ...]:
    """The names of all probes, in the order of their keys."""
    return tuple(entry.name for entry in REGISTRY)


SAMPLES: dict[str, type[Sample]] = {entry.name: entry.sample_class() for entry in REGISTRY}
"""The Sample class of each probe: `probes.recording.codec` decodes them once this is imported."""
