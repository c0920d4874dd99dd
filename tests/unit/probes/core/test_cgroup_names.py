# SPDX-License-Identifier: Apache-2.0
"""Names of control groups: from the paths that systemd and the runtimes make."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.core.cgroup_names import (
    AT_ONCE,
    FORGET_SECONDS,
    MOST_NAMES,
    RETRY_SECONDS,
    CgroupName,
    Names,
    describe,
    short,
)

ID = "0123456789ab" + "cd" * 26
OTHER = "f" * 12 + "01" * 26
UID = "1a2b3c4d-0001-4000-8000-000000000001"
SLICES = "/kubepods.slice/kubepods-burstable.slice"
POD = f"{SLICES}/kubepods-burstable-pod{UID.replace('-', '_')}.slice"


def container(runtime: str | None, path: str, **more: str) -> CgroupName:
    return CgroupName(path, container=ID[:12], runtime=runtime, id=ID)._replace(**more)


def unit(name: str | None, path: str) -> CgroupName:
    return CgroupName(path, unit=name)


KNOWN = [
    unit(None, "/"),
    unit("init.scope", "/init.scope"),
    unit("system.slice", "/system.slice"),
    unit("nginx.service", "/system.slice/nginx.service"),
    unit("nginx.service", "/system.slice/nginx.service/workers"),
    unit("getty@tty1.service", "/system.slice/system-getty.slice/getty@tty1.service"),
    unit("session-3.scope", "/user.slice/user-1000.slice/session-3.scope"),
    unit("foo.service", "/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service"),
    unit("user@1000.service", "/user.slice/user-1000.slice/user@1000.service"),
    container("docker", f"/docker/{ID}"),
    container("docker", f"/system.slice/docker-{ID}.scope"),
    container("podman", f"/machine.slice/libpod-{ID}.scope"),
    container("podman", f"/machine.slice/libpod-{ID}.scope/container"),
    container("podman", f"/libpod_parent/libpod-{ID}"),
    container(
        "podman",
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
    ),
    container("podman", f"/system.slice/redis.service/libpod-payload-{ID}", unit="redis.service"),
    unit("redis.service", "/system.slice/redis.service/runtime"),
    container("containerd", f"{POD}/cri-containerd-{ID}.scope", pod=UID),
    container("cri-o", f"{POD}/crio-{ID}.scope", pod=UID),
    container("cri-o", f"{POD}/crio-{ID}.scope/container", pod=UID),
    container(
        "containerd",
        f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-{ID}.scope",
        pod=UID,
    ),
    container(None, f"/kubepods/burstable/pod{UID}/{ID}", pod=UID),
    container(None, f"/kubepods/pod{UID}/{ID}", pod=UID),
    container("cri-o", f"/kubepods/besteffort/pod{UID}/crio-{ID}", pod=UID),
    container(
        "containerd",
        f"/system.slice/containerd.service/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
        f":cri-containerd:{ID}",
        pod=UID,
        unit="containerd.service",
    ),
    container(None, f"/kubepods/burstable/pod{'ab' * 16}/{ID}", pod="ab" * 16),
    CgroupName(POD, pod=UID),
    CgroupName(SLICES),
    container("containerd", f"/system.slice/nerdctl-{ID}.scope"),
    container(
        "podman",
        f"/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope",
        pod=OTHER[:12],
    ),
    CgroupName("/lxc/web", container="web", runtime="lxc"),
    CgroupName("/lxc.payload/web/init.scope", "init.scope", container="web", runtime="lxc"),
    CgroupName(
        "/lxc.payload.web/system.slice/nginx.service",
        "nginx.service",
        container="web",
        runtime="lxc",
    ),
    CgroupName(
        "/machine.slice/systemd-nspawn@web-1.service/payload",
        "systemd-nspawn@web-1.service",
        container="web-1",
        runtime="systemd-nspawn",
    ),
    CgroupName(
        "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service",
        "nginx.service",
        container="web",
        runtime="systemd-nspawn",
    ),
    CgroupName(
        r"/machine.slice/machine-web\x2d1.scope/payload",
        container="web-1",
        runtime="systemd-nspawn",
    ),
    CgroupName(
        r"/machine.slice/machine-qemu\x2d3\x2dubuntu20.04.scope/libvirt/emulator",
        container="ubuntu20.04",
        runtime="qemu",
    ),
    # In containers: the innermost, and the pod that it is of.
    container(
        "containerd",
        f"/docker/{OTHER}/kubelet.slice/kubelet-kubepods.slice/"
        f"kubelet-kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-{ID}.scope",
        pod=UID,
    ),
    container("docker", f"{POD}/cri-containerd-{OTHER}.scope/docker/{ID}", pod=UID),
    # As seen from a cgroup namespace: paths go up from its root.
    container("docker", f"/../docker-{ID}.scope"),
    unit("nginx.service", "/../../system.slice/nginx.service"),
    CgroupName("/../.."),
]


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.cgroup[-60:])
def test_paths_tell_names(known: CgroupName) -> None:
    assert describe(known.cgroup) == known


@pytest.mark.parametrize(
    "path",
    [
        f"/system.slice/docker-{ID[:11]}.scope",
        f"/system.slice/docker-{ID}0.scope",
        f"/system.slice/docker-{ID.upper()}.scope",
        f"/system.slice/docker-{ID}.scope.d",
        f"/machine.slice/libpod-conmon-{ID}.scope",
        "/docker/buildkit",
        "/docker",
        "/kubepods/burstable/pod../x",
        f"/kubepods/burstable/pod{UID}x/0123456789ab",
        f"/pod{UID}",
        "/lxc",
        "/deadbeef",
        "/0123456789ab",
        f"/kubepods\n/pod{UID}\n",
    ],
)
def test_what_is_no_container_is_none(path: str) -> None:
    name = describe(path)
    assert (name.container, name.pod, name.runtime, name.id) == (None,) * 4


def test_escapes_that_would_act_on_a_terminal_stay_escaped() -> None:
    assert describe(r"/machine.slice/machine-a\x1b\x5bm.scope").container == r"a\x1b\x5bm"
    assert describe(r"/machine.slice/machine-\xc3\xa9.scope").container == "é"


@given(
    st.text()
    | st.lists(st.sampled_from(["docker", "kubepods", "..", f"pod{UID}", ID])).map("/".join)
)
def test_any_path_is_described(path: str) -> None:
    name = describe(path)
    assert name.cgroup == path
    assert all(part is None or part for part in name[1:])
    assert short(name)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        (CgroupName("/x", container=ID[:12], runtime="docker", id=ID), f"docker:{ID[:12]}"),
        (CgroupName("/x", container="db", runtime="docker", id=ID), "db"),
        (CgroupName("/x", None, "web", "shop", "nginx", "containerd", ID), "web/nginx"),
        (CgroupName("/x", pod=UID), "pod:1a2b3c4d"),
        (CgroupName("/x", unit="nginx.service"), "nginx"),
        (CgroupName("/a/b.c"), "b.c"),
        (CgroupName("/"), "/"),
    ],
)
def test_the_word_that_says_most(name: CgroupName, word: str) -> None:
    assert short(name) == word


def test_names_are_asked_for_once_and_again_after_a_while() -> None:
    now = [100.0]
    names = Names(lambda: now[0])
    path = f"/docker/{ID}"
    assert names.describe(path).container == ID[:12]
    assert names.told(path) is None
    assert names.question() == [ID]
    # One question at a time.
    assert names.question() == []
    names.learn({ID: ["db", None, None, "docker"]})
    assert names.told(path) == names.describe(path)
    assert names.describe(path) == CgroupName(path, container="db", runtime="docker", id=ID)
    assert names.question() == []
    now[0] += FORGET_SECONDS
    names.describe(path)
    assert names.question() == [ID]


@pytest.mark.parametrize("answer", [None, {}, [], {ID: None}, {ID: ["db"]}, {OTHER: ["a"] * 4}])
def test_who_is_not_known_is_asked_for_again_later(answer: object) -> None:
    now = [100.0]
    names = Names(lambda: now[0])
    path = f"/docker/{ID}"
    names.describe(path)
    assert names.question() == [ID]
    names.learn(answer)
    assert names.told(path) is None
    assert names.question() == []
    now[0] += RETRY_SECONDS
    names.describe(path)
    assert names.question() == [ID]


def test_a_pod_gets_its_name_and_keeps_its_runtime() -> None:
    names = Names()
    path = f"{POD}/cri-containerd-{ID}.scope"
    names.describe(path)
    names.question()
    names.learn({ID: ["nginx", "web-1", "shop", None]})
    assert names.describe(path) == CgroupName(
        path, None, "web-1", "shop", "nginx", "containerd", ID
    )


def test_names_are_bounded() -> None:
    names = Names()
    for number in range(MOST_NAMES + 500):
        names.describe(f"/docker/{number:064x}")
    asked = 0
    while wanted := names.question():
        assert len(wanted) <= AT_ONCE
        asked += len(wanted)
        names.learn({number: ["x", None, None, None] for number in wanted})
    assert asked == MOST_NAMES
    assert len(names._told) == len(names._due) == MOST_NAMES


def test_units_are_asked_of_nobody() -> None:
    names = Names()
    names.describe("/system.slice/nginx.service")
    names.describe("/lxc/web")
    assert names.question() == []
