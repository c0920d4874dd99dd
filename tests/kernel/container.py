# SPDX-License-Identifier: Apache-2.0
"""Runs a command as a container engine would, from the options of `podman run`.

`Settings.parse` reads the options from a documented command line, so what is proven is what is
written there. `python -m tests.kernel.container SETTINGS` then makes the namespaces and mounts
that an engine makes by default, and becomes the command with those capabilities and no others.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import shlex
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from probes.core import kernel
from tests.kernel.image import Stage
from tests.paths import ROOT

TOKENS, TOKEN = "/etc/probetop/tokens", "control-control-control"
"""A file that the one who documents makes by hand, and what we write into ours."""
CONTAINERFILE = ROOT / "deploy" / "Containerfile"

CLONE = {"mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000,
         "pid": 0x20000000, "net": 0x40000000}  # fmt: skip
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
MASKED = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware")
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""What docker and podman hide, and what they make read-only, unless a container is privileged."""
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


@dataclass(slots=True)
class Settings:
    """A container, as options of `podman run` describe it; `command` is what it becomes."""

    root: str = ""
    capabilities: list[str] = field(default_factory=list)
    volumes: list[tuple[str, str, bool]] = field(default_factory=list)
    host: list[str] = field(default_factory=list)
    read_only: bool = False
    no_new_privileges: bool = False
    refused: list[int] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, line: str) -> Settings:
        """The container of a `podman run` command line; fails for an option not known here."""
        words = shlex.split(line)
        assert words[:2] == ["podman", "run"], words
        settings, at = cls(), 2
        while words[at].startswith("--"):
            option, at = words[at], at + 1
            if option in ("--detach", "--read-only"):
                settings.read_only |= option == "--read-only"
                continue
            settings._take(option, words[at])
            at += 1
        assert words[at:] == ["probetop"], words[at:]
        return settings

    def _take(self, option: str, value: str) -> None:
        if option in ("--pid", "--cgroupns", "--network"):
            assert value == "host", (option, value)
            self.host.append(option.lstrip("-").replace("cgroupns", "cgroup"))
        elif option == "--cap-add":
            self.capabilities.append(f"CAP_{value}")
        elif option == "--volume":
            source, target, mode = (*value.split(":"), "rw")[:3]
            self.volumes.append((source, target, mode == "ro"))
        elif option == "--security-opt":
            assert value in ("no-new-privileges", "seccomp=unconfined"), value
            self.no_new_privileges |= value == "no-new-privileges"
        else:
            assert option == "--name" or (option, value) == ("--cap-drop", "ALL"), option


def documented(containerfile: Path, heading: str) -> str:
    """The indented command line that follows a line with `heading` in a file's comments."""
    lines = [line.removeprefix("#").rstrip() for line in containerfile.read_text().splitlines()]
    after = lines[next(i for i, line in enumerate(lines) if heading in line) :]
    begin = next(i for i, line in enumerate(after) if line.startswith("     "))
    end = next(i for i, line in enumerate(after) if i > begin and not line.startswith("     "))
    return re.sub(r"\\\s+", " ", "\n".join(after[begin:end])).strip()


def documented_by(built: Stage, *command: str) -> Settings:
    """The container of the documented command line, with a command of an image."""
    settings = Settings.parse(documented(CONTAINERFILE, "and run it"))
    settings.root, settings.env = str(built.root), dict(built.env)
    settings.command = list(command)
    tokens = built.root.parent / f"{built.root.name}.tokens"
    tokens.write_text(f"read {'r' * 20}\ncontrol {TOKEN}\n")
    tokens.chmod(0o600)
    settings.volumes = [
        (str(tokens) if source == TOKENS else source, target, ro)
        for source, target, ro in settings.volumes
    ]
    return settings


def command(settings: Settings) -> list[str]:
    """What starts the container; its standard streams are the container's."""
    return [sys.executable, "-m", "tests.kernel.container", json.dumps(asdict(settings))]


def run(settings: Settings, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the container until it ends."""
    return subprocess.run(
        command(settings), cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip


# In the container's process.

_libc = ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    words = [word.encode() or None for word in (source, target, kind)]
    options = data.encode() or None
    _must(_libc.mount(*words, ctypes.c_ulong(flags), options), f"mount {source} on {target}")


def _bind(source: str, target: str, read_only: bool = False) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(target).touch()
    _mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        flags = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
        _mount("", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY | flags)


def _file_systems(settings: Settings, root: str) -> None:
    """Everything that is mounted in a container, from the top down."""
    secure = MS_NOSUID | MS_NODEV | MS_NOEXEC
    _mount(root, root, flags=MS_BIND)
    _mount("proc", f"{root}/proc", "proc", secure)
    _mount("sysfs", f"{root}/sys", "sysfs", secure | MS_RDONLY)
    if "cgroup" in settings.host:
        _bind("/sys/fs/cgroup", f"{root}/sys/fs/cgroup", read_only=True)
    else:
        _mount("cgroup2", f"{root}/sys/fs/cgroup", "cgroup2", secure | MS_RDONLY)
    _mount("tmpfs", f"{root}/dev", "tmpfs", MS_NOSUID, "mode=755")
    for name in DEVICES:
        _bind(f"/dev/{name}", f"{root}/dev/{name}")
    os.mkdir(f"{root}/dev/shm")
    _mount("tmpfs", f"{root}/dev/shm", "tmpfs", secure, "mode=1777")
    for source, target, read_only in settings.volumes:
        _bind(source, f"{root}{target}", read_only)
    for path in MASKED:
        if os.path.isdir(root + path):
            _mount("tmpfs", root + path, "tmpfs", MS_RDONLY)
        elif os.path.exists(root + path):
            _bind("/dev/null", root + path)
    for path in (path for path in READ_ONLY if os.path.exists(root + path)):
        _bind(root + path, root + path, read_only=True)
    if settings.read_only:
        _mount("", root, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def _loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(sock, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


def enter(settings: Settings) -> None:
    """Become a process in new namespaces, whose root is the container's."""
    # The proof asks for a network of its own: whose loopback it is makes no difference.
    shared = set(settings.host) - {"network"}
    flags = sum(flag for name, flag in CLONE.items() if name not in shared)
    _must(_libc.unshare(ctypes.c_int(flags)), "unshare")
    if "pid" not in shared:
        pid = os.fork()
        if pid:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    _mount("", "/", flags=MS_REC | MS_PRIVATE)
    _loopback()
    _file_systems(settings, settings.root)
    os.chdir(settings.root)
    number = PIVOT_ROOT[os.uname().machine]
    _must(_libc.syscall(ctypes.c_long(number), b".", b"."), "pivot_root")
    _must(_libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def _refuse(numbers: Sequence[int]) -> list[str]:
    """A shell's way to begin with a seccomp filter: a Python that installs it and goes on."""
    program = b""
    for number in numbers:
        program += struct.pack("=HBBI", 0x15, 0, 1, number) + struct.pack("=HBBI", 6, 0, 0, 0x50001)
    code = struct.pack("=HBBI", 0x20, 0, 0, 0) + program + struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)
    script = (
        "import ctypes, os, sys\n"
        "code = bytes.fromhex(sys.argv[1])\n"
        "class P(ctypes.Structure): _fields_ = [('n', ctypes.c_ushort), ('f', ctypes.c_char_p)]\n"
        "p, libc = P(len(code) // 8, code), ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(p)) == 0\n"
        "os.execvp(sys.argv[2], sys.argv[2:])\n"
    )
    return ["python3", "-c", script, code.hex()] if numbers else []


def become(settings: Settings) -> NoReturn:
    """The rest of what an engine does, and then its command."""
    names = [name.removeprefix("CAP_").lower() for name in settings.capabilities]
    limits = ["setpriv", f"--bounding-set={','.join(['-all', *(f'+{n}' for n in names)])}"]
    limits += ["--inh-caps=-all", *(["--no-new-privs"] if settings.no_new_privileges else [])]
    os.execvpe(limits[0], [*limits, *_refuse(settings.refused), *settings.command], settings.env)


def main(text: str) -> NoReturn:
    """The process of the container, from its settings in JSON."""
    values: dict[str, Any] = json.loads(text)
    settings = Settings(**values)
    assert stat.S_ISDIR(os.stat(settings.root).st_mode)
    assert kernel.capabilities() >= set(settings.capabilities)
    enter(settings)
    become(settings)


if __name__ == "__main__":
    main(sys.argv[1])
