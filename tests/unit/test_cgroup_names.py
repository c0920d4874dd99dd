# SPDX-License-Identifier: Apache-2.0
"""Names of control groups: from the paths that systemd and the runtimes make."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.cgroup_names import CgroupName, describe, short

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
