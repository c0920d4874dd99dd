# SPDX-License-Identifier: Apache-2.0
"""What probetop is compared with: packages, commands, and what is missing here."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.hooks import Attach, tool
from bench.measure import Variant
from probes.core import kernel

PACKAGES = {
    "libbpf-tools": "syscount",
    "bpftrace": "bpftrace",
    "bpfcc-tools": "syscount-bpfcc",
    "htop": "htop",
    "btop": "btop",
    "glances": "glances",
}
"""Debian's packages that hold peers, and a command of each."""
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_OUR_HEADERS = Path(kernel.__file__).resolve().parent
"""BCC takes this folder's include/ for the kernel's headers; it has what compiling needs."""

Has = Callable[[str], object]


def which(command: str) -> str | None:
    """Where a command is, also below /usr/sbin."""
    return shutil.which(command, path=_PATH)


def missing(has: Has = which) -> str:
    """One line that names the packages that are not installed, "" if there are none."""
    packages = [package for package, command in PACKAGES.items() if not has(command)]
    if not packages:
        return ""
    names = " ".join(packages)
    return f"peers that are not installed are left out: {names} (--peers installs them)"


def install() -> None:
    """The newest versions that the distribution has; what cannot be installed stays missing."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        with contextlib.suppress(FileNotFoundError):
            subprocess.run([*apt, *command], env=environment, stdout=sys.stderr, check=False)


def versions() -> list[str]:
    """Name and version of what is installed, as the package manager has it."""
    out = []
    for package in ("python3-bpfcc", *PACKAGES):
        command = ["dpkg-query", "-W", "-f", "${Version}", package]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        if done.stdout.strip():
            out.append(f"{package} {done.stdout.strip()}")
    return out


def has_headers() -> bool:
    """Whether the running kernel's headers are there, without which bcc's tools do not compile."""
    build = Path("/lib/modules") / os.uname().release / "build"
    return build.exists() or Path("/sys/kernel/kheaders.tar.xz").exists()


def _peer(has: Has, name: str, counts: str, command: Iterable[str], beside: str) -> list[Variant]:
    """A tool as a variant, nothing where it is not installed."""
    program, *arguments = command
    found = has(program)
    if not found:
        return []
    return [Variant(name, counts, _started([str(found), *arguments]), beside)]


def _started(command: list[str]) -> Attach:
    environment = {}
    if command[0].endswith("-bpfcc") and not has_headers():
        environment["BCC_KERNEL_SOURCE"] = str(_OUR_HEADERS)
    return lambda: tool(*command, environment=environment)


def of_bcc(has: Has, program: str, arguments: list[str], counts: str, beside: str) -> list[Variant]:
    """One of bcc's tools; without the kernel's headers it is tried with probetop's small ones."""
    with_ours = "" if has_headers() else ", with probetop's headers"
    words = [arg for arg in arguments if arg.startswith("-") and not arg.startswith("-i")]
    name = " ".join([program, *words]) + " (bcc)" + with_ours
    return _peer(has, name, counts, [program, *arguments], beside)


def of_libbpf(
    has: Has, program: str, arguments: list[str], counts: str, beside: str, options: str = ""
) -> list[Variant]:
    """One of libbpf-tools, named with the options that matter."""
    name = f"{program} {options}".strip() + " (libbpf-tools)"
    return _peer(has, name, counts, [program, *arguments], beside)


def of_bpftrace(has: Has, name: str, code: str, counts: str, beside: str) -> list[Variant]:
    """A line of bpftrace."""
    return _peer(has, f"bpftrace, {name}", counts, ["bpftrace", "-e", code], beside)
