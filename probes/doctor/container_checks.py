# SPDX-License-Identifier: Apache-2.0
"""What a container, or a service manager, takes away, and which of its options gives it back.

Trials of namespaces, seccomp and access to other processes, for the doctor, and the fixes of
its other trials where the words for a whole machine would not help. Tried without a trace.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from probes.bpf import bpf_syscall
from probes.core import kernel
from probes.host import landlock
from probes.host import seccomp as seccomp_filter
from probes.uprobes.kernel_trials import Unavailable, Untried

FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""The machine's own: its number is part of the kernel's interface (PROC_PID_INIT_INO)."""


class Way(NamedTuple):
    """How to mend something: an option of `podman run` and `docker run`, a field of a pod.

    `unit` is the setting of a systemd unit, "" for none. `said` comes in brackets after it.
    """

    option: str
    pod: str
    unit: str = ""
    said: str = ""


def fix(way: Way) -> str:
    """The words for where this runs; "" where none of them applies."""
    said = f" ({way.said})" if way.said else ""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return f"{way.pod} in the pod's specification{said}"
    if contained():
        return f"podman or docker run {way.option}; Kubernetes: {way.pod}{said}"
    return f"{way.unit} in the systemd unit, or start it as root{said}" if way.unit else ""


def contained() -> bool:
    """Whether this is a container, as far as one can see."""
    return kernel.container() is not None or not _machines_pids()


def capability(*names: str, said: str = "") -> Way:
    """The Way for capabilities by their names ("CAP_BPF")."""
    bare = [name.removeprefix("CAP_") for name in names]
    option = " ".join(f"--cap-add {name}" for name in bare)
    add = f"securityContext.capabilities.add: [{', '.join(bare)}]"
    return Way(option, add, f"AmbientCapabilities={' '.join(names)}", said)


def any_fix(names: Sequence[str]) -> str:
    """The words for capabilities that root does not have: it is contained, whatever by."""
    way = capability(*names)
    known = f"podman or docker run {way.option}; Kubernetes: {way.pod}; systemd: {way.unit}"
    return fix(way) if contained() else known


def volume(path: str, mode: str = ":ro") -> Way:
    """The Way for a directory of the machine."""
    return Way(f"--volume {path}:{path}{mode}", f"hostPath {path}, mounted at {path}")


_ADMIN = "CAP_SYS_ADMIN"
_UPROBES = "kernels since July 2025 ask for it where they are older than 6.6"
UNCONFINED = Way(
    "--security-opt seccomp=unconfined", "securityContext.seccompProfile.type: Unconfined"
)
HOST_PIDS = Way("--pid host", "hostPID: true")
_REFUSED = (errno.EPERM, errno.EACCES)


def way(name: str, error: OSError | None) -> Way | None:
    """What gives back what the doctor's trial `name` did not find, if it was taken away."""
    refused = error is not None and error.errno in _REFUSED
    if refused and name != "other processes" and closed():
        return UNCONFINED
    if name in ("uprobes", "USDT") and refused and _ADMIN not in kernel.capabilities():
        return capability(_ADMIN, said=_UPROBES)
    if name == "run statistics" and refused and _ADMIN not in kernel.capabilities():
        return capability(_ADMIN)
    if name == "change of user":
        names = {"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"} - kernel.capabilities()
        return capability(*sorted(names)) if os.geteuid() == 0 else None
    if name == "other processes":
        return _others_way()
    if name == "BTF" and not os.path.exists("/sys/kernel/btf"):
        return volume("/sys")
    if name in ("tracefs", "tracepoints") and kernel.tracefs(mount=False) is None:
        return volume("/sys/kernel/tracing")
    if name == "cgroup v2":
        more = volume("/sys/fs/cgroup")
        return Way(f"--cgroupns host {more.option}", more.pod)
    return None


def _machines_pids() -> bool:
    try:
        return os.readlink("/proc/self/ns/pid") == FIRST_PID_NAMESPACE
    except OSError:
        return True


def process_ids() -> str:
    """Whether process ids here are the ones that the kernel's events have."""
    if not _machines_pids():
        raise Unavailable("this is a pid namespace of its own, and events have the machine's ids")
    return "the machine's"


def _says(number: int, *args: int) -> int:
    """The errno of a system call that cannot succeed."""
    try:
        bpf_syscall._syscall(number, *[ctypes.c_long(arg) for arg in args])
    except OSError as error:
        return error.errno or 0
    return 0


def closed() -> list[str]:
    """The system calls of probes that a filter refuses, or the kernel for want of privileges.

    Both are asked for what they do not know, and answer so; a filter does not let them.
    """
    mode = next((text for text in _status() if text.startswith("Seccomp:")), "Seccomp: 0")
    if mode.split()[1] == "0":
        return []
    said = {"bpf": _says(0, 0xFFFF, 0, 0), "perf_event_open": _says(1, 0, 0, -1, -1, -1)}
    return [name for name, number in said.items() if number in (errno.EPERM, errno.ENOSYS)]


def seccomp() -> str:
    """Whether a filter of system calls lets through what loads and attaches programs."""
    refused = closed()
    if refused and not kernel.may_load():
        raise Untried("not tried: the kernel refuses what a filter would, without privileges")
    if refused:
        raise Unavailable(f"a seccomp filter refuses {' and '.join(refused)}")
    return "nothing refuses bpf and perf_event_open"


def change_of_user() -> str:
    """Whether root can give its privileges up for good, and become another user."""
    if os.geteuid() != 0:
        raise Untried("not tried: needs root")
    missing = sorted({"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"} - kernel.capabilities())
    if missing:
        raise Unavailable(f"uid 0 without {' and '.join(missing)}")
    return "root can become anybody"


def _status() -> list[str]:
    return kernel.lines("/proc/self/status")


def apparmor() -> str | None:
    """The AppArmor profile that this process is held to; None for none."""
    for path in ("/proc/self/attr/apparmor/current", "/proc/self/attr/current"):
        text = kernel.read_text(path)
        if text and text.endswith("(enforce)"):
            return text.rpartition(" ")[0]
    return None


def other_processes() -> str:
    """Whether files can be opened as other processes see them, which is where their code is."""
    refused: OSError | None = None
    for pid in _stronger():
        try:
            os.stat(f"/proc/{pid}/root/")
        except PermissionError as error:
            refused = error
        except OSError:  # it has ended
            continue
        else:
            return "their files can be read"
    if refused is None:
        raise Untried("no process is there that this one might not look into")
    raise refused


def _stronger(limit: int = 200) -> Iterator[int]:
    """Processes that are somebody else's, or may do what this one may not."""
    import psutil

    ours = kernel.capabilities("Prm")
    for pid in psutil.pids()[:limit]:
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
        except OSError:
            continue
        # Kernel threads have no files of their own.
        code = kernel.read_text(f"/proc/{pid}/cmdline")
        if code and (uid != os.geteuid() or not kernel.capabilities("Prm", pid) <= ours):
            yield pid


def _others_way() -> Way:
    """How to let it: a capability, or else AppArmor's profile is what forbids it."""
    profile = apparmor()
    if profile is not None and "CAP_SYS_PTRACE" in kernel.capabilities():
        option = "--security-opt apparmor=unconfined"
        pod = "securityContext.appArmorProfile.type: Unconfined"
        return Way(option, pod, "AppArmorProfile=", f"the profile {profile} forbids it")
    return capability("CAP_SYS_PTRACE")


def cgroup_root() -> str:
    """Where the whole cgroup v2 hierarchy is mounted, not only a container's part of it."""
    found = kernel.cgroup2()
    if found is None:
        raise Unavailable("no cgroup v2 hierarchy is mounted")
    if not kernel.is_cgroup_root(found):
        raise Unavailable(f"{found} shows this container's part of the hierarchy only")
    return str(found)


def confinement() -> str:
    """What confines the process without privileges beside its user; all of it should be there."""
    try:
        landlocked = landlock.version()
    except OSError:
        landlocked = 0
    filters = seccomp_filter.available()
    missing = [] if filters else ["seccomp filters"]
    missing += [] if landlocked else ["Landlock"]
    if missing:
        raise Unavailable(f"this kernel has no {' and no '.join(missing)}")
    return f"seccomp and Landlock, version {landlocked}"
