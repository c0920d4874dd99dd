# SPDX-License-Identifier: Apache-2.0
"""Whether paths still lead to the traced files, on files that the test makes."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from probes.host import traced_files
from probes.host.open_file import open_file
from probes.host.traced_files import SECONDS, Files, FileWatch, identify, state_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_text("one")
    return path


def files_of(*paths: Path) -> Files:
    """As they come from the loader: through JSON."""
    facts = json.loads(json.dumps(identify([open_file(str(path)) for path in paths])))
    return tuple((path, device, inode) for path, device, inode in facts)


def found(watch: FileWatch, now: float, *files: Files) -> Mapping[Files, str | None]:
    """What a look says that begins now, once it has ended."""
    assert watch.news(now, lambda: files) == {}
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if news := watch.news(now, lambda: ()):
            return news
        time.sleep(0.005)
    raise AssertionError("it never ended")


def test_each_file_is_there_once_and_none_of_a_process(file: Path) -> None:
    status = file.stat()
    paths = [str(file), str(file), f"/proc/{os.getpid()}/root{file}"]
    assert identify(map(open_file, paths)) == [[str(file), status.st_dev, status.st_ino]]
    assert identify([]) == []


def test_what_becomes_of_a_file(file: Path) -> None:
    files = files_of(file)
    assert state_of(files) == "current"
    # Written to, it is the same file, and so is one that has another name as well.
    file.write_text("two")
    os.link(file, file.with_name("name"))
    assert state_of(files) == "current"
    os.replace(file, file.with_name("aside"))
    assert state_of(files) == "deleted"
    file.write_text("three")
    assert state_of(files) == "replaced"
    os.replace(file.with_name("aside"), file)
    assert state_of(files) == "current"
    assert state_of(()) is None


def test_a_directory_in_its_path_that_is_a_file_now(file: Path) -> None:
    inner = file.with_name("directory")
    inner.mkdir()
    (inner / "program").write_text("")
    files = files_of(inner / "program")
    (inner / "program").unlink()
    inner.rmdir()
    inner.write_text("")
    assert state_of(files) == "deleted"


def test_of_several_the_worst_is_said(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = file.with_name("other")
    other.write_text("")
    files = files_of(file, other)
    stat = os.stat

    def refuse(path: Any) -> os.stat_result:
        if path == str(other):
            raise PermissionError(13, "Permission denied")
        return stat(path)

    monkeypatch.setattr(os, "stat", refuse)
    # Of what cannot be looked at nothing is claimed.
    assert state_of(files_of(other)) is None
    assert state_of(files) is None
    file.unlink()
    assert state_of(files) == "deleted"


def test_looks_are_apart_and_give_news_once(file: Path) -> None:
    watch, files = FileWatch(), files_of(file)
    assert found(watch, 100.0, files) == {files: "current"}
    file.unlink()
    assert watch.news(100.0 + SECONDS / 2, lambda: [files]) == {}
    assert watch._worker is None or not watch._worker.is_alive()
    assert watch.news(100.0 + SECONDS / 2, lambda: [files]) == {}
    assert found(watch, 100.0 + SECONDS, files) == {files: "deleted"}
    # What was attached meanwhile is looked at as soon as there is a Frame.
    watch.look_soon()
    assert found(watch, 100.0 + SECONDS, files, ()) == {files: "deleted"}


def test_a_file_system_that_hangs_holds_nobody_up(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look at a time: there is never more than one thread that waits."""
    files, held = files_of(file), threading.Event()

    def hang(one: Files) -> str:
        held.wait(10)
        return "replaced"

    monkeypatch.setattr(traced_files, "state_of", hang)
    watch, before = FileWatch(), threading.active_count()
    for tick in range(20):
        assert watch.news(tick * SECONDS, lambda: [files]) == {}
    assert threading.active_count() == before + 1
    held.set()
    assert watch._worker is not None
    watch._worker.join(10)
    assert watch.news(0.0, lambda: [files]) == {files: "replaced"}


def test_without_files_there_is_no_thread() -> None:
    watch, before = FileWatch(), threading.active_count()
    assert watch.news(0.0, lambda: [(), ()]) == {}
    assert threading.active_count() == before
