# SPDX-License-Identifier: Apache-2.0
"""How to mend what a container or a service manager takes away: the words for each of them."""

from __future__ import annotations

import errno
import os

import pytest

from probes.core import kernel
from probes.doctor import container_checks
from probes.doctor.container_checks import Way

WAY = Way("--option", "podField: true", "Unit=yes", "a reason")
REFUSED = PermissionError(errno.EACCES, "no")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a container nor in a pod, whatever this test runs in."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(container_checks, "contained", lambda: False)
    monkeypatch.setattr(container_checks, "closed", list)
    monkeypatch.setattr(kernel, "capabilities", lambda *_: frozenset({"CAP_BPF"}))


def test_a_pod_is_told_its_field_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert container_checks.fix(WAY) == "podField: true in the pod's specification (a reason)"


def test_a_container_is_told_the_option_and_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_checks, "contained", lambda: True)
    words = "podman or docker run --option; Kubernetes: podField: true (a reason)"
    assert container_checks.fix(WAY) == words


def test_a_service_is_told_its_setting() -> None:
    assert container_checks.fix(WAY).startswith("Unit=yes in the systemd unit, or")
    assert container_checks.fix(WAY._replace(unit="")) == ""


@pytest.mark.parametrize("name", ["uprobes", "USDT", "run statistics"])
def test_what_asks_for_sys_admin(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    way = container_checks.way(name, REFUSED)
    assert way is not None
    assert (way.option, way.unit) == ("--cap-add SYS_ADMIN", "AmbientCapabilities=CAP_SYS_ADMIN")
    assert container_checks.way(name, FileNotFoundError(errno.ENOENT, "no")) is None
    monkeypatch.setattr(kernel, "capabilities", lambda *_: frozenset({"CAP_SYS_ADMIN"}))
    assert container_checks.way(name, REFUSED) is None


def test_a_filter_of_system_calls_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_checks, "closed", lambda: ["bpf"])
    assert container_checks.way("uprobes", REFUSED) == container_checks.UNCONFINED
    assert container_checks.way("JIT", REFUSED) == container_checks.UNCONFINED
    assert container_checks.way("JIT", None) is None


def test_apparmor_is_named_where_the_capability_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    way = container_checks.way("other processes", REFUSED)
    assert way is not None
    assert way.option == "--cap-add SYS_PTRACE"
    monkeypatch.setattr(container_checks, "apparmor", lambda: "docker-default")
    monkeypatch.setattr(kernel, "capabilities", lambda *_: frozenset({"CAP_SYS_PTRACE"}))
    way = container_checks.way("other processes", REFUSED)
    assert way is not None
    assert way.option == "--security-opt apparmor=unconfined"
    assert "docker-default" in way.said


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        (None, None),
        ("unconfined", None),
        ("docker-default (enforce)", "docker-default"),
        ("a b (enforce)", "a b"),
        ("docker-default (complain)", None),
    ],
)
def test_apparmor_profiles(
    monkeypatch: pytest.MonkeyPatch, text: str | None, profile: str | None
) -> None:
    monkeypatch.setattr(kernel, "read_text", lambda path: text)
    assert container_checks.apparmor() == profile


def test_root_is_told_which_capabilities_its_change_of_user_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    held = frozenset({"CAP_SETGID", "CAP_SETPCAP"})
    monkeypatch.setattr(kernel, "capabilities", lambda *_: held)
    way = container_checks.way("change of user", None)
    assert way is not None
    assert way.option == "--cap-add SETUID"
