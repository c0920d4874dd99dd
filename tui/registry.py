# SPDX-License-Identifier: Apache-2.0
"""All probes, one line each. Keys, footer, palette, command line, stream, replay, export and the
contract tests are derived from this table.

Modules are named here, not imported: the broker must not load Textual, and neither must the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from probes.base import Probe
from probes.samples import Sample

if TYPE_CHECKING:
    from tui.panes.base import Pane


@dataclass(frozen=True, slots=True)
class Entry:
    """One probe, its Sample and its pane, as "module:attribute"; `key` toggles it.

    A reader of recordings imports the Sample's module, but not the probe's.
    """

    key: str
    name: str
    title: str
    sample_path: str
    probe_path: str
    pane_path: str
    on_at_start: bool = True

    def probe_class(self) -> type[Probe]:
        """The probe's class, imported on use."""
        return cast("type[Probe]", _load(self.probe_path))

    def pane_class(self) -> Callable[[], Pane]:
        """The pane's class, imported on use."""
        return cast("Callable[[], Pane]", _load(self.pane_path))


REGISTRY: tuple[Entry, ...] = (
    Entry(
        "1",
        "syscalls",
        "System calls",
        "probes.samples:SyscallSample",
        "probes.syscalls:SyscallProbe",
        "tui.panes.syscalls:SyscallPane",
    ),
    Entry(
        "2",
        "execs",
        "Execs",
        "probes.samples:ExecSample",
        "probes.execs:ExecProbe",
        "tui.panes.execs:ExecPane",
    ),
    Entry(
        "3",
        "latency",
        "Latency",
        "probes.samples:LatencySample",
        "probes.latency:LatencyProbe",
        "tui.panes.latency:LatencyPane",
    ),
    Entry(
        "4",
        "pmc",
        "PMC",
        "probes.samples:PmcSample",
        "probes.pmc:PmcProbe",
        "tui.panes.pmc:PmcPane",
    ),
)


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def names() -> tuple[str, ...]:
    """The names of all probes, in the order of their keys."""
    return tuple(entry.name for entry in REGISTRY)


SAMPLES: dict[str, type[Sample]] = {entry.name: _load(entry.sample_path) for entry in REGISTRY}
"""The Sample class of each probe; importing this module makes all of them decodable by
`probes.codec`."""
