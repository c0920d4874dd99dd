# SPDX-License-Identifier: Apache-2.0
"""Facts about this machine, checked against other ways to learn them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from probes.bpf import bpf_syscall
from probes.core import kernel
from probes.symbols.usdt import usdt_probes
from probes.uprobes import kernel_trials
from tests.paths import ROOT


def test_cpu_lists() -> None:
    assert kernel.parse_cpu_list("0") == [0]
    assert kernel.parse_cpu_list("0-3,8,10-11") == [0, 1, 2, 3, 8, 10, 11]
    with pytest.raises(ValueError, match="invalid literal"):
        kernel.parse_cpu_list("none")
    assert len(kernel.online_cpus()) == os.cpu_count()
    assert kernel.possible_cpus() > max(kernel.online_cpus())


def test_capability_names_are_the_kernels() -> None:
    # CAP_SYS_ADMIN is 21, CAP_PERFMON 38, CAP_BPF 39 in linux/capability.h.
    assert kernel.decode_capabilities(1 << 21) == {"CAP_SYS_ADMIN"}
    assert kernel.decode_capabilities(3 << 38) == {"CAP_PERFMON", "CAP_BPF"}
    assert kernel.decode_capabilities(1 << 50 | 1) == {"CAP_CHOWN", "CAP_50"}
    assert kernel.decode_capabilities(0) == frozenset()


def status_with(tmp_path: Path, eff: str, uid_map: str) -> dict[str, Path]:
    status, ids = tmp_path / "status", tmp_path / "uid_map"
    status.write_text(f"Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t{eff}\n")
    ids.write_text(uid_map)
    return {"/proc/self/status": status, "/proc/self/uid_map": ids}


@pytest.mark.parametrize(
    ("eff", "uid_map", "may"),
    [
        ("000000c000000000", "0 0 4294967295", True),
        ("0000000000200000", "0 0 4294967295", True),
        ("0000008000000000", "0 0 4294967295", False),
        ("0000000000000000", "0 0 4294967295", False),
        ("ffffffffffffffff", "0 1000 1", False),
    ],
)
def test_may_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eff: str, uid_map: str, may: bool
) -> None:
    files = status_with(tmp_path, eff, uid_map)
    monkeypatch.setattr(kernel, "read_text", lambda path: files[path].read_text().strip())
    assert kernel.may_load() is may


@pytest.mark.parametrize(
    ("release", "numbers"),
    [
        ("5.10.0-30-amd64", (5, 10, 0)),
        ("7.3.4-1~bpo13", (7, 3, 4)),
        ("6.18.44-fc-v657", (6, 18, 44)),
        ("6.1", (6, 1, 0)),
        ("7.0-rc3", (7, 0, 0)),
        ("6.12.1+", (6, 12, 1)),
    ],
)
def test_version(
    monkeypatch: pytest.MonkeyPatch, release: str, numbers: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(kernel, "release", lambda: release)
    assert kernel.version() == numbers


@pytest.mark.parametrize(
    ("version", "modes", "release", "preempts", "raw"),
    [
        ("#1 SMP Debian", None, "7.3.0", False, False),
        ("#1 SMP PREEMPT_DYNAMIC", "full (lazy)", "7.3.0", True, True),
        ("#1 SMP PREEMPT_RT", None, "7.0.1", True, True),
        ("#1 SMP PREEMPT_DYNAMIC", None, "6.19.2", True, False),
        ("#1 SMP PREEMPT_DYNAMIC", "none voluntary (full)", "6.12.0", True, False),
        ("#1 SMP PREEMPT_DYNAMIC", "none (voluntary) full", "6.1.0", False, False),
        ("#1 SMP PREEMPT_DYNAMIC", "(none) voluntary full lazy", "7.1.0", False, False),
    ],
)
def test_which_kernels_preempt_programs(
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    modes: str | None,
    release: str,
    preempts: bool,
    raw: bool,
) -> None:
    uname = os.uname_result(("Linux", "node", release, version, "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: uname)
    monkeypatch.setattr(kernel, "read_text", lambda path: modes)
    assert kernel.preempts() is preempts
    assert kernel.preempts_raw_tracepoints() is raw


def test_lockdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "read_text", lambda path: "none [integrity] confidentiality")
    assert kernel.lockdown() == "integrity"
    monkeypatch.setattr(kernel, "read_text", lambda path: None)
    assert kernel.lockdown() is None


@pytest.mark.parametrize(
    ("ids", "fix"),
    [
        (["linuxmint", "ubuntu", "debian"], "sudo apt-get install python3-bpfcc"),
        (["rocky", "rhel", "centos", "fedora"], "sudo dnf install python3-bcc"),
        (["arch"], "sudo pacman -S python-bcc"),
        (["opensuse-tumbleweed", "opensuse", "suse"], "sudo zypper install python3-bcc"),
    ],
)
def test_bcc_hint_by_distribution(
    monkeypatch: pytest.MonkeyPatch, ids: list[str], fix: str
) -> None:
    monkeypatch.setattr(kernel, "distribution", lambda: ("x", ids))
    assert kernel.bcc_hint()[1] == fix


def test_bcc_hint_elsewhere_names_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "distribution", lambda: ("x", ["gentoo"]))
    assert "python3-bpfcc" in kernel.bcc_hint()[1]


def test_another_bcc_is_told_apart(tmp_path: Path) -> None:
    package = tmp_path / "bcc"
    package.mkdir()
    (package / "__init__.py").touch()
    assert not kernel.is_bcc(str(tmp_path))
    (package / "libbcc.py").touch()
    assert kernel.is_bcc(str(tmp_path))


def test_refused_calls_keep_their_errno() -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        bpf_syscall.perf_event_open(bpf_syscall.PERF_SOFTWARE, 0, pid=-1, cpu=-1)
    assert caught.value.errno == 22


def test_file_offset_finds_the_same_bytes() -> None:
    address = ctypes.cast(ctypes.CDLL(None).getppid, ctypes.c_void_p).value or 0
    path, offset = kernel_trials.file_offset(address)
    with open(path, "rb") as file:
        file.seek(offset)
        assert file.read(16) == ctypes.string_at(address, 16)


def test_usdt_of_what_is_no_elf(tmp_path: Path) -> None:
    for content in (b"", b"#!/bin/sh\n", b"\x7fELF\x02\x01", b"\x7fELF\x02\x01" + b"\xff" * 100):
        file = tmp_path / "file"
        file.write_bytes(content)
        assert usdt_probes(str(file)) == []


@pytest.mark.parametrize(("value", "kind"), [("lxc=1", "lxc=1"), ("", "container"), (None, None)])
def test_a_container_is_known_by_the_variable_of_its_processes(
    value: str | None, kind: str | None
) -> None:
    """As container managers set it, where none of their files and cgroups shows."""
    program = (
        "import os\nfrom probes.core import kernel\n"
        "os.path.exists = lambda path: False\nkernel.read_text = lambda path: None\n"
        "print(repr(kernel.container()))\n"
    )
    variables = {} if value is None else {"container": value}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{kind!r}\n"
