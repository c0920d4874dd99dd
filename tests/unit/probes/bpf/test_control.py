# SPDX-License-Identifier: Apache-2.0
"""The control page: where its words lie, and that the kernel never sees half of one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.bpf import control_page
from probes.bpf.control_page import CGROUP, COMM, OTHERS, PID, STARTED, UID, Control
from probes.bpf.layouts import CONTROL
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.frame import Filters
from probes.host import cgroups
from probes.host.filter_watch import ENDED
from tests.paths import INCLUDE

HEADER = (INCLUDE / "probetop.h").read_text()


@pytest.fixture
def page() -> Iterator[Control]:
    """A control page in plain shared memory."""
    fd = os.memfd_create("control")
    os.ftruncate(fd, 4096)
    yield (made := Control(fd))
    made.close()


def words(page: Control) -> dict[str, object]:
    """The page as the header's structure says, see test_layouts."""
    return dict(zip(CONTROL.formats, CONTROL.struct.unpack_from(page.array.memory), strict=True))


def test_own_processes_are_left_out_where_their_numbers_are_known(
    monkeypatch: pytest.MonkeyPatch, page: Control
) -> None:
    page.set_filters(Filters())
    assert words(page)["filters"] == 0
    monkeypatch.setattr(control_page, "_own", [])
    control_page.leave_out(0x12345, 0x54321)
    fd = os.memfd_create("control")
    os.ftruncate(fd, 4096)
    made = Control(fd)
    made.set_filters(Filters(pid=7))
    found = words(made)
    made.close()
    assert (found["reader"], found["broker"]) == (0x12345, 0x54321)
    assert found["filters"] == PID | OTHERS
    monkeypatch.setattr(kernel, "in_initial_pid_namespace", lambda: False)
    control_page.leave_out(1, 2)
    assert control_page._own == []


def test_words_lie_where_the_header_says(page: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic_ns", lambda: 12345)
    page.enable(True)
    page.next_epoch()
    assert page.next_round() == 1
    page.set_sample(16)
    page.set_wake(4096)
    page.set_filters(Filters(pid=7, comm="name", uid=8), 90_000_000)
    assert words(page) == {
        "enabled": 1,
        "epoch": 1,
        "filters": PID | COMM | UID | STARTED,
        "cgroup": 0,
        "level": 0,
        "pid": 7,
        "uid": 8,
        "comm": b"name" + bytes(12),
        "sample": 16,
        "wake": 4096,
        "since": 12345,
        "started": 90_000_000,
        "reader": 0,
        "broker": 0,
        "round": 1,
    }
    page.enable(False)
    assert words(page)["enabled"] == 0


def test_filter_bits_are_the_headers() -> None:
    found = dict(re.findall(r"#define PT_FILTER_(\w+) (\d+)", HEADER))
    assert {name: int(bit) for name, bit in found.items()} == {
        "PID": PID,
        "COMM": COMM,
        "UID": UID,
        "CGROUP": CGROUP,
        "STARTED": STARTED,
        "OTHERS": OTHERS,
    }


def test_new_page_takes_every_call(page: Control) -> None:
    assert (words(page)["sample"], words(page)["filters"], words(page)["enabled"]) == (1, 0, 0)


def test_epochs_count_up_and_name_the_one_that_ended(page: Control) -> None:
    assert [page.next_epoch() for _ in range(3)] == [0, 1, 2]
    assert (page.epoch, words(page)["epoch"]) == (3, 3)


def test_root_and_zero_are_values_not_absence(page: Control) -> None:
    page.set_filters(Filters(uid=0))
    assert (words(page)["filters"], words(page)["uid"]) == (UID, 0)
    page.set_filters(Filters())
    assert words(page)["filters"] == 0


def test_a_start_is_compared_only_of_a_process_whose_start_is_known(page: Control) -> None:
    page.set_filters(Filters(pid=7))
    assert (words(page)["filters"], words(page)["started"]) == (PID, 0)
    page.set_filters(Filters(pid=7), 0)
    assert words(page)["filters"] == PID | STARTED
    page.set_filters(Filters(comm="name"), 5)
    assert words(page)["filters"] == COMM


def test_one_word_changes_while_the_filter_holds(
    page: Control, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a filter, all that happens meanwhile would be taken for what passes."""
    seen: list[int] = []
    put = Control._put

    def record(self: Control, offset: int, value: int) -> None:
        put(self, offset, value)
        seen.append(int(str(words(self)["filters"])))

    monkeypatch.setattr(Control, "_put", record)
    page.set_filters(Filters(pid=7), 5)
    seen.clear()
    page.set_filters(Filters(pid=7), ENDED)
    assert set(seen) == {PID | STARTED}
    assert words(page)["started"] == ENDED
    page.set_filters(Filters(cgroup="/a"))
    seen.clear()
    (mount / "a").rename(mount / "old")
    shutil.copytree(mount / "old", mount / "a")
    page.set_filters(Filters(cgroup="/a"))
    assert set(seen) == {CGROUP}
    assert words(page)["cgroup"] == (mount / "a").stat().st_ino
    # Half of two words is nobody's filter: everything passes instead.
    seen.clear()
    page.set_filters(Filters(pid=8, cgroup="/a/b"), 6)
    assert 0 in seen


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("fifteen-bytes-x", b"fifteen-bytes-x\0"),
        ("sixteen-bytes-xy", b"sixteen-bytes-x\0"),
        ("\udcff\x1b[", b"\xff\x1b[" + bytes(13)),
        ("\\xff\x1b[", b"\xff\x1b[" + bytes(13)),
        ("a\ud800", b"a\\ud800" + bytes(9)),
        ("ß" * 9, "ß".encode() * 7 + b"\xc3\0"),
    ],
)
def test_names_are_what_the_kernel_keeps(page: Control, name: str, kept: bytes) -> None:
    page.set_filters(Filters(comm=name))
    assert words(page)["comm"] == kept


def test_a_cgroup_that_no_path_can_name_contains_nothing(page: Control) -> None:
    for path in ("/\ud800", "/a\0b"):
        page.set_filters(Filters(cgroup=path))
        assert words(page)["cgroup"] == 0
        assert words(page)["filters"] != 0


def test_a_word_changes_in_one_store(page: Control) -> None:
    """Another process writes epochs as fast as it can: none but those is ever seen."""
    cpus = sorted(os.sched_getaffinity(0))
    writer = os.fork()
    if writer == 0:
        os.sched_setaffinity(0, cpus[-1:])
        while True:
            page.next_epoch()
    try:
        os.sched_setaffinity(0, cpus[:1])
        last = 0
        while last < 1_000_000:
            (seen,) = struct.unpack_from("=Q", page.array.memory, 8)
            assert seen >= last
            last = seen
    finally:
        os.sched_setaffinity(0, cpus)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directories that look like a cgroup2 mount."""
    for path in (".", "a", "a/b"):
        (tmp_path / path).mkdir(exist_ok=True)
        (tmp_path / path / "cgroup.procs").touch()
    monkeypatch.setattr(kernel, "cgroup2", lambda: tmp_path)
    return tmp_path


def test_cgroup_by_inode_and_depth(page: Control, mount: Path) -> None:
    for path, level in (("/", 0), ("/a", 1), ("a/b", 2), (str(mount / "a" / "b"), 2)):
        inode = (mount / path.removeprefix(str(mount)).lstrip("/")).stat().st_ino
        assert cgroups.cgroup_id(path) == (inode, level)
        page.set_filters(Filters(cgroup=path))
        seen = words(page)
        assert (seen["filters"], seen["cgroup"], seen["level"]) == (CGROUP, inode, level)


def test_a_cgroup_that_is_none(page: Control, mount: Path) -> None:
    with pytest.raises(ProbeError, match="/nothing is no cgroup"):
        cgroups.cgroup_id("/nothing")
    # Gone while it was filtered by: still a filter, and no cgroup's id is 0.
    page.set_filters(Filters(cgroup="/nothing"))
    assert (words(page)["filters"], words(page)["cgroup"]) == (CGROUP, 0)


def test_without_cgroup2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "cgroup2", lambda: None)
    with pytest.raises(ProbeError, match="no cgroup2 hierarchy") as caught:
        cgroups.cgroup_id("/")
    assert "mount -t cgroup2" in caught.value.fix


def test_nothing_of_others_passes_while_a_cgroup_comes_or_goes(
    page: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filter never stops holding, and is whole whenever the cgroup's id is not 0."""
    ids = {"/web": (7, 2), "/db": (9, 3), "/gone": (0, 0)}
    monkeypatch.setattr(control_page, "cgroup_id", ids.__getitem__)
    page.set_filters(Filters(cgroup="/web"))
    put = page._put
    seen: list[tuple[int, int, int]] = []

    def noted(at: int, word: int) -> None:
        put(at, word)
        number, level = map(page._get, control_page._WORDS[:2])
        seen.append((page._get(control_page._FILTERS), number, level))

    monkeypatch.setattr(page, "_put", noted)
    for path in ("/gone", "/db"):
        page.set_filters(Filters(cgroup=path))
    assert all(bits & CGROUP for bits, _, _ in seen)
    assert {(number, level) for _, number, level in seen if number} == {(9, 3)}
    assert seen[-1][1:] == (9, 3)
