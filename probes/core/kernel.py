# SPDX-License-Identifier: Apache-2.0
"""What this machine is: architecture, CPUs, capabilities, tracefs, where BCC is.

Reads /proc, /sys and /etc only, imports no BCC and starts no process. Facts are
best effort: what cannot be read is None or empty, never a guess.
"""

from __future__ import annotations

import ctypes
import glob
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Literal

Arch = Literal["x86_64", "arm64"]

# Bit numbers of include/uapi/linux/capability.h, in order from 0.
_CAPABILITIES = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID "
    "CAP_SETUID CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST "
    "CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO "
    "CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE "
    "CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE "
    "CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM "
    "CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE"
)

# /proc/self/status names the sets CapInh, CapPrm, CapEff, CapBnd and CapAmb.
CapabilitySet = Literal["Inh", "Prm", "Eff", "Bnd", "Amb"]

BCC_PACKAGES = {
    "debian": ("python3-bpfcc", "apt-get install python3-bpfcc"),
    "ubuntu": ("python3-bpfcc", "apt-get install python3-bpfcc"),
    "fedora": ("python3-bcc", "dnf install python3-bcc"),
    "rhel": ("python3-bcc", "dnf install python3-bcc"),
    "centos": ("python3-bcc", "dnf install python3-bcc"),
    "arch": ("python-bcc", "pacman -S python-bcc"),
    "suse": ("python3-bcc", "zypper install python3-bcc"),
    "opensuse": ("python3-bcc", "zypper install python3-bcc"),
}
"""Distribution id, or what it is like -> (package, command) of BCC's Python side."""


def read_text(path: str | Path) -> str | None:
    """The stripped text of a small file, None when it cannot be read."""
    try:
        return Path(path).read_bytes().decode("utf-8", "replace").strip()
    except OSError:
        return None


def lines(path: str | Path) -> list[str]:
    """The lines of a file of /proc, none when it cannot be read.

    Names in it are somebody's choice, and may hold what Python takes for the end of a line too:
    the kernel escapes line feeds alone.
    """
    return (read_text(path) or "").split("\n")


def release() -> str:
    """The running kernel's release, as `uname -r` prints it."""
    return os.uname().release


def version() -> tuple[int, int, int]:
    """The running kernel's release as numbers; what it has not is 0."""
    parts = release().partition("-")[0].split(".")[:3]
    numbers = [int("".join(filter(str.isdigit, part)) or 0) for part in parts]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch


def preempts() -> bool:
    """Whether tasks may lose their CPU while they are in the kernel; True where nobody says."""
    if "PREEMPT" not in os.uname().version:
        return False
    modes = read_text("/sys/kernel/debug/sched/preempt") or ""
    return "(none)" not in modes and "(voluntary)" not in modes


def preempts_raw_tracepoints() -> bool:
    """Whether programs on raw tracepoints may lose their CPU: from Linux 7.0 on.

    The kernel skips a program that is running on the CPU already. So what happens there until
    the one that lost its CPU goes on is not seen, and counted as a recursion.
    """
    return version() >= (7, 0, 0) and preempts()


def machine() -> str:
    """The machine name of uname(2), for messages."""
    return os.uname().machine


def arch() -> Arch | None:
    """The architecture by its kernel name, None for those that no probe supports."""
    names: dict[str, Arch] = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
    return names.get(machine())


def parse_cpu_list(text: str) -> list[int]:
    """CPU numbers of a list in the kernel's format ("0-3,8"); raises ValueError if it is none."""
    cpus: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def possible_cpus() -> int:
    """How many CPUs may ever be there: the length of what is indexed by CPU number."""
    text = read_text("/sys/devices/system/cpu/possible")
    return max(parse_cpu_list(text)) + 1 if text else os.cpu_count() or 1


def online_cpus() -> list[int]:
    """The numbers of the CPUs that run now."""
    text = read_text("/sys/devices/system/cpu/online")
    return parse_cpu_list(text) if text else list(range(os.cpu_count() or 1))


def decode_capabilities(mask: int) -> frozenset[str]:
    """Names of a capability mask's bits; one newer than this list is CAP_<number>."""
    names = _CAPABILITIES.split()
    return frozenset(
        names[bit] if bit < len(names) else f"CAP_{bit}"
        for bit in range(mask.bit_length())
        if mask >> bit & 1
    )


def capabilities(which: CapabilitySet = "Eff", pid: int | str = "self") -> frozenset[str]:
    """One capability set of a process; empty when it cannot be read."""
    for line in lines(f"/proc/{pid}/status"):
        name, _, value = line.partition(":")
        if name == f"Cap{which}":
            return decode_capabilities(int(value, 16))
    return frozenset()


def in_user_namespace() -> bool:
    """Whether this process's user ids are not the machine's, as in rootless containers."""
    text = read_text("/proc/self/uid_map")
    return text is not None and text.split() != ["0", "0", "4294967295"]


INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""The number of the namespace that has the machine's pids."""


def pid_namespace() -> int | None:
    """The number of the pid namespace that this process is in; None if it is not known."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


def in_initial_pid_namespace() -> bool:
    """Whether this process sees the pids that the kernel's own structures hold."""
    return pid_namespace() == INITIAL_PID_NAMESPACE


def may_load() -> bool:
    """Whether tracing programs may be loaded: CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN.

    A user namespace's capabilities do not count: the kernel asks for the machine's.
    """
    have = capabilities()
    enough = "CAP_SYS_ADMIN" in have or {"CAP_BPF", "CAP_PERFMON"} <= have
    return enough and not in_user_namespace()


def lockdown() -> str | None:
    """The kernel lockdown mode: none, integrity or confidentiality; None if unknown."""
    text = read_text("/sys/kernel/security/lockdown")
    if not text or "[" not in text:
        return None
    return text.partition("[")[2].partition("]")[0]


def container() -> str | None:
    """What kind of container this is, None outside of one as far as one can see."""
    if os.path.exists("/.dockerenv"):
        return "docker"
    if os.path.exists("/run/.containerenv"):
        return "podman"
    name = read_text("/run/systemd/container")
    if name:
        return name
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    # Without a pid namespace of its own, process 1 is the machine's.
    import psutil  # takes 6 ms, which no start is to wait for

    for pid in (os.getpid(), 1):
        with suppress(psutil.Error, OSError):
            variables = psutil.Process(pid).environ()
            if "container" in variables:
                return variables["container"] or "container"
    # The first cgroup of a machine is its root; a container's name shows in its path.
    path = read_text("/proc/1/cgroup") or ""
    for kind in ("docker", "kubepods", "lxc", "libpod", "containerd"):
        if kind in path:
            return kind
    return None


def virtual_machine() -> str | None:
    """The hypervisor's name ("unknown" if only its presence shows), None on bare metal."""
    vendor = read_text("/sys/hypervisor/type")
    if vendor:
        return vendor
    product = " ".join(
        read_text(f"/sys/class/dmi/id/{name}") or "" for name in ("sys_vendor", "product_name")
    )
    known = ("KVM", "QEMU", "VMware", "VirtualBox", "Microsoft", "Xen", "Google", "Amazon EC2",
             "Firecracker", "Parallels", "OpenStack")  # fmt: skip
    for name in known:
        if name.lower() in product.lower() and "metal" not in product.lower():
            return name
    if "hypervisor" in (read_text("/proc/cpuinfo") or "").split():
        return "unknown"
    return "unknown" if os.path.exists("/proc/device-tree/hypervisor") else None


def tracefs(mount: bool = True) -> Path | None:
    """The mounted tracefs, mounted now when it was not and we may; None otherwise."""
    preferred = "/sys/kernel/tracing"
    found = mount_points("tracefs")
    if found:
        return Path(preferred if preferred in found else found[0])
    # Below debugfs the kernel mounts it on the first access, which this is.
    if os.path.isdir("/sys/kernel/debug/tracing/events"):
        return Path("/sys/kernel/debug/tracing")
    if mount and _mount("tracefs", preferred) == 0:
        return Path(preferred)
    return None


def mount_points(kind: str) -> list[str]:
    """Where file systems of this kind are mounted, in the order of /proc/self/mounts."""
    found = [line.split(" ") for line in lines("/proc/self/mounts")]
    return [f[1].replace("\\040", " ") for f in found if len(f) > 2 and f[2] == kind]


def _mount(kind: str, where: str) -> int:
    """mount(2) of a pseudo file system: 0, or the errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(kind.encode(), where.encode(), kind.encode(), 0, None) == 0:
        return 0
    return ctypes.get_errno()


def cgroup2() -> Path | None:
    """Where the cgroup v2 hierarchy is mounted (also beside v1), None if nowhere.

    In a container that may be a part of it; where the whole is mounted too, it is that.
    """
    found = [Path(path) for path in mount_points("cgroup2")]
    return next((path for path in found if is_cgroup_root(path)), found[0] if found else None)


def is_cgroup_root(path: Path) -> bool:
    """Whether a directory is the root of the machine's cgroup v2 hierarchy, by its inode."""
    try:
        return path.stat().st_ino == 1
    except OSError:
        return False


def find_bcc() -> list[str]:
    """Directories to append to sys.path so that the distribution's BCC imports, best first.

    A directory counts only if its `bcc` is the BPF Compiler Collection: other packages
    of that name have no libbcc.py.
    """
    patterns = (
        "/usr/lib/python3/dist-packages",
        "/usr/lib/python3.*/site-packages",
        "/usr/lib64/python3.*/site-packages",
        "/usr/local/lib/python3*/dist-packages",
        "/usr/local/lib/python3.*/site-packages",
    )
    return [
        directory
        for pattern in patterns
        for directory in sorted(glob.glob(pattern), reverse=True)
        if is_bcc(directory)
    ]


def is_bcc(directory: str) -> bool:
    """Whether `directory` holds a package `bcc` that is the BPF Compiler Collection."""
    return all(
        os.path.isfile(os.path.join(directory, "bcc", name))
        for name in ("__init__.py", "libbcc.py")
    )


def distribution() -> tuple[str, list[str]]:
    """This system's name, and its ids from its own to those of what it is like."""
    try:
        fields = platform.freedesktop_os_release()
    except OSError:
        return "this system", []
    ids = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    return fields.get("PRETTY_NAME", "this system"), [name.lower() for name in ids if name]


def bcc_hint() -> tuple[str, str]:
    """Why probes cannot be compiled when BCC is missing, and the command that mends it."""
    why = "the BPF Compiler Collection (BCC), which compiles the probes, is not installed"
    _, ids = distribution()
    for name in ids:
        package, command = BCC_PACKAGES.get(name.partition("-")[0], ("", ""))
        if package:
            return why, f"sudo {command}"
    return why, "install your distribution's BCC package for Python (python3-bpfcc, python3-bcc)"
