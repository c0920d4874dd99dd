# SPDX-License-Identifier: Apache-2.0
"""Return probes by tracefs: what is written there, and what is removed, without a kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from probes.bpf import kretprobe
from probes.core import kernel


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The list of kernel probes of a played tracefs, which keeps the commands it is given."""
    path = tmp_path / "kprobe_events"
    path.write_text("")
    monkeypatch.setattr(kernel, "tracefs", lambda mount=True: tmp_path)
    monkeypatch.setattr("secrets.token_hex", lambda n: "0a" * n)
    return path


NAME = f"r{os.getppid()}_0a0a0a0a"


def test_what_is_defined_has_a_number(events: Path) -> None:
    directory = events.parent / "events" / "probetop" / NAME
    directory.mkdir(parents=True)
    (directory / "id").write_text("1234\n")
    assert kretprobe.define("vfs_read") == 1234
    assert events.read_text() == f"r1024:probetop/{NAME} vfs_read\n"


def test_what_cannot_be_defined_has_none(events: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kretprobe.define("vfs_read") is None  # the kernel made no event of it
    events.unlink()
    assert kretprobe.define("vfs_read") is None
    assert not events.exists()
    monkeypatch.setattr(kernel, "tracefs", lambda mount=True: None)
    assert kretprobe.define("vfs_read") is None
    assert kretprobe.tidy()


def test_ours_is_removed_and_nothing_else(events: Path) -> None:
    others = "p:kprobes/p_do_exit_0 do_exit\nr1024:kprobes/r5_0a do_exit\nr:probetop/mine do_exit\n"
    ours = "r1024:probetop/r5_0a0a0a0a vfs_read\nr1024:probetop/r6_0b0b0b0b a.isra.0\n"
    events.write_text(others + ours)
    assert kretprobe.tidy()
    commands = events.read_text().removeprefix(others + ours)
    assert commands == "-:probetop/r5_0a0a0a0a\n-:probetop/r6_0b0b0b0b\n"


@pytest.mark.parametrize(
    ("owner", "nothing_left"), [(os.getpid(), False), (1, True)], ids=["own process", "process 1"]
)
def test_what_is_in_use_stays(
    events: Path, monkeypatch: pytest.MonkeyPatch, owner: int, nothing_left: bool
) -> None:
    events.write_text(f"r1024:probetop/r{owner}_0a0a0a0a vfs_read\n")

    def busy(fd: int, data: bytes) -> int:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "write", busy)
    assert kretprobe.tidy() is nothing_left
