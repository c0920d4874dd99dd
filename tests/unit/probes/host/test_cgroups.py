# SPDX-License-Identifier: Apache-2.0
"""In which cgroup a process is, where v1 and cgroup2 are mounted beside each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.host import cgroups
from probes.host.cgroups import Cgroups
from tui.settings.validators import check_cgroup

HYBRID = {
    7: "1:name=systemd:/system.slice/web.service\n0::/\n",
    8: "1:name=systemd:/\n0::/\n",
    9: "1:name=systemd:/old\n0::/a\n",
}


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cgroup2 mount with /a and a v1 one with /web.service, and processes in them."""
    root, old = tmp_path / "unified", tmp_path / "systemd"
    for path in (root, root / "a", old, old / "web.service"):
        path.mkdir()
        (path / "cgroup.procs").touch()
    for pid, text in HYBRID.items():
        (tmp_path / str(pid)).write_text(text)
    monkeypatch.setattr(kernel, "cgroup2", lambda: root)
    monkeypatch.setattr(kernel, "mount_points", lambda kind: [str(old)] * (kind == "cgroup"))

    def opened(name: object, mode: str) -> Any:
        """Files of /proc are those of HYBRID."""
        parts = str(name).split("/")
        return open(tmp_path / parts[2] if parts[1] == "proc" else str(name), mode)

    monkeypatch.setattr(cgroups, "open", opened, raising=False)
    return root


def number(path: Path) -> int:
    return os.stat(path).st_ino


def test_executions_name_the_unit_that_only_v1_knows(mount: Path) -> None:
    found = Cgroups()
    assert found.path(number(mount), 7) == "/system.slice/web.service"
    assert found.path(number(mount), 8) == "/"
    assert found.path(number(mount / "a"), 9) == "/a"


def test_a_process_that_has_gone_was_where_its_parent_is(mount: Path) -> None:
    found = Cgroups()
    assert found.path(number(mount), 7) == "/system.slice/web.service"
    assert found.path(number(mount), 1000, 7) == "/system.slice/web.service"
    assert found.path(number(mount), 1000, 1001) == "/"
    assert found.path(number(mount / "a"), 1000, 7) == "/a"


def test_without_v1_nothing_else_is_asked(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "mount_points", lambda kind: [])
    assert Cgroups().path(number(mount), 7) == "/"


def test_a_cgroup_of_v1_is_refused_by_what_it_is(mount: Path) -> None:
    assert check_cgroup("/a") == "/a"
    for given in ("/web.service", str(mount.parent / "systemd/web.service")):
        with pytest.raises(ProbeError, match=r"exists only in cgroup v1"):
            check_cgroup(given)
    with pytest.raises(ProbeError, match="not a cgroup"):
        check_cgroup("/nothing")
