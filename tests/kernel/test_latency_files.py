# SPDX-License-Identifier: Apache-2.0
"""A traced file that is replaced or deleted is said, and its replacement can be traced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.core.errors import ProbeError
from probes.host import traced_files
from tests.kernel.harness import Work
from tests.kernel.timing import Timing, by_pid, targets_of

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced_files, "SECONDS", 0.1)


@pytest.fixture
def path(program: Program) -> Iterator[Path]:
    """A program of its own, which may be replaced."""
    copy = program("functions").with_name("own")
    shutil.copy(program("functions"), copy)
    yield copy
    copy.unlink(missing_ok=True)


def is_said(live: Timing, spec: str, state: str | None) -> None:
    live.wait(f"{spec} is {state}", lambda frame: targets_of(frame)[spec].file == state)


def calls_of(live: Timing, spec: str, *works: Work) -> dict[int, int]:
    before = live.latency()
    for work in works:
        work.work()
    return by_pid(before, live.latency(), spec)


def test_a_replaced_file_is_said_and_followed(path: Path, program: Program) -> None:
    spec = f"uprobe:{path}:shared"
    other = f"uprobe:{program('functions')}:shared"
    with Timing(spec, other, "runq") as live:
        is_said(live, spec, "current")
        with Work(path, "shared", "30") as old:
            shutil.copy(path, new := path.with_name("new"))
            os.replace(new, path)
            is_said(live, spec, "replaced")
            known = live.now()
            assert (known[other].file, known["runq"].file) == ("current", None)
            with Work(path, "shared", "30") as late:
                found = calls_of(live, spec, old, late)
                assert found.keys() == {old.pid}
                each = found[old.pid]
            before = live.now()[other]
            live.source.set_option("latency", "follow", spec)
            live.wait("it starts", lambda frame: targets_of(frame)[spec].state == "starting")
            (target,) = live.decided(spec)
            assert target.state == "on"
            # The counts begin again, and those of the others go on.
            assert target.histogram.n == 0
            assert spec not in {of for of, _ in live.latency().processes}
            assert list(live.now()) == [spec, other, "runq"]
            assert live.now()[other].histogram.n >= before.histogram.n
            is_said(live, spec, "current")
        with Work(path, "shared", "30") as new_one:
            assert calls_of(live, spec, new_one) == {new_one.pid: each}


def test_a_deleted_file_is_said_and_goes_on_being_traced(path: Path) -> None:
    spec = f"uprobe:{path}:shared"
    with Timing(spec) as live, Work(path, "shared", "30") as work:
        is_said(live, spec, "current")
        path.unlink()
        is_said(live, spec, "deleted")
        assert calls_of(live, spec, work)[work.pid] > 0
        live.source.set_option("latency", "follow", spec)
        (failed,) = live.decided(spec)
        while failed.state == "on":
            (failed,) = live.decided(spec)
        assert failed.state == "failed"
        assert str(path) in (failed.why or "")


def test_a_link_that_leads_elsewhere_is_a_replacement(path: Path) -> None:
    """As an upgrade to another minor version does it."""
    link = path.with_name("link")
    link.symlink_to(path)
    spec = f"uprobe:{link}:shared"
    try:
        with Timing(spec) as live:
            is_said(live, spec, "current")
            shutil.copy(path, second := path.with_name("second"))
            link.unlink()
            link.symlink_to(second)
            is_said(live, spec, "replaced")
            second.unlink()
            is_said(live, spec, "deleted")
    finally:
        link.unlink()


def test_only_targets_can_be_followed(path: Path) -> None:
    with Timing("runq") as live:
        with pytest.raises(ProbeError, match="is not among the targets"):
            live.source.set_option("latency", "follow", f"uprobe:{path}:shared")
        live.source.set_option("latency", "follow", "runq")
        assert live.decided("runq")[0].state == "on"
