# SPDX-License-Identifier: Apache-2.0
"""A Sample class in a module of its own is recorded and read like those of `probes.core.sample`."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from probes.core.frame import Frame, Host
from probes.core.limits import Count, Cpu
from probes.core.sample import Counts, Sample
from probes.execs.probe import ExecProbe
from probes.recording.codec import FrameCodec
from probes.recording.file import Reader, Writer
from probes.syscalls.sample import SyscallSample
from tui import registry
from tui.commands import diff_input as runs


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedSample(Sample):
    """Threads created, by CPU."""

    created: Mapping[Cpu, Count] = field(default_factory=dict)


def frame(tick: int) -> Frame:
    sample = CreatedSample(state="on", created={0: 7 + tick, 3: 1})
    return Frame(
        time=1.7e9 + tick, mono=5.0 + tick, interval=1.0, host=Host(), samples={"created": sample}
    )


def test_a_recording_holds_it(tmp_path: Path) -> None:
    frames = [frame(tick) for tick in range(3)]
    path = str(tmp_path / "new.ptrec")
    writer = Writer(path)
    for one in frames:
        writer.write(one)
    writer.close()
    assert list(Reader(path)) == frames


class CreatedProbe(ExecProbe):
    """Has the Sample above."""

    name = "created"
    sample_type = CreatedSample

    @staticmethod
    def contract(before: Sample | None, after: Sample, seconds: float) -> dict[str, Any]:
        return {"created": dict(cast(CreatedSample, after).created)}


def test_recordings_with_it_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Diff knows no figures of it, and shows those of the other probes."""
    here = f"{__name__}:CreatedProbe"
    entry = registry.Entry("9", "created", "Created", f"{__name__}:CreatedSample", here, "")
    monkeypatch.setattr(runs, "REGISTRY", (*registry.REGISTRY, entry))
    path = str(tmp_path / "new.ptrec")
    writer = Writer(path)
    for tick in range(3):
        one = frame(tick)
        calls = SyscallSample(state="on", calls={"read": Counts(500 * tick, 0)})
        writer.write(replace(one, samples={**one.samples, "syscalls": calls}))
    writer.close()
    assert "read" in {key.item for key in runs.load(path).figures}


def test_two_classes_of_one_name_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("another_probe")
    module.CreatedSample = type("CreatedSample", (Sample,), {"__module__": "another_probe"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "another_probe", module)
    with pytest.raises(TypeError, match="two Sample classes are called CreatedSample"):
        FrameCodec()


@pytest.mark.parametrize("entry", registry.REGISTRY, ids=lambda entry: entry.name)
def test_the_registry_names_the_sample_of_the_probe(entry: registry.Entry) -> None:
    assert registry.SAMPLES[entry.name] is entry.probe_class().sample_type


def test_the_registry_imports_no_probe() -> None:
    """Replay and diff import it, and need none of what loads probes."""
    modules = [entry.probe_path.partition(":")[0] for entry in registry.REGISTRY]
    program = "import sys, tui.registry\nprint(*sorted(set(sys.argv[1:]) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program, *modules], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
