# SPDX-License-Identifier: Apache-2.0
"""System call tables against this machine's headers, and by spot checks on all four."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from probes.core.syscall_names import errno_name, name_of, nr_of, table

HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "i386": "/usr/include/x86_64-linux-gnu/asm/unistd_32.h",
}

# From arch/*/syscall*.tbl and include/uapi/asm-generic/unistd.h of Linux 6.18.
NEW = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
TIME64 = re.compile(r"time64$")
"""Calls that only 32-bit machines have."""
SPOT = {
    "x86_64": {"read": 0, "getppid": 110, "execve": 59, "futex": 202, "newfstatat": 262},
    "i386": {"read": 3, "getppid": 64, "execve": 11, "socketcall": 102, "futex_time64": 422},
    "arm64": {"read": 63, "getppid": 173, "execve": 221, "mmap": 222, "newfstatat": 79},
    "arm": {"read": 3, "getppid": 64, "execve": 11, "cacheflush": 0xF0002, "set_tls": 0xF0005},
}


@pytest.mark.parametrize("arch", sorted(SPOT))
def test_spot_checks_and_new_calls(arch: str) -> None:
    names = table(arch)
    for name, number in {**SPOT[arch], **NEW}.items():
        assert names[number] == name
    assert len(names) > 300
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("arch", sorted(HEADERS))
def test_agrees_with_the_installed_headers(arch: str) -> None:
    path = Path(HEADERS[arch])
    if not path.exists():
        pytest.skip(f"{path} is not installed (linux-libc-dev on x86_64)")
    defined = re.findall(r"^#define __NR_(\w+) (\d+)$", path.read_text(), re.MULTILINE)
    assert len(defined) > 300
    assert [(n, nr) for n, nr in defined if table(arch).get(int(nr)) != n] == []


def test_arm64_agrees_with_the_generic_table() -> None:
    path = Path("/usr/include/asm-generic/unistd.h")
    if not path.exists():
        pytest.skip(f"{path} is not installed (linux-libc-dev)")
    text = path.read_text()
    # Only the plain definitions: the __NR3264 ones are renamed by word size.
    defined = re.findall(r"^#define __NR_(\w+) (\d+)$", text, re.MULTILINE)
    # Markers, and calls that other architectures number so.
    skipped = ("arch_specific_syscall", "syscalls", "sync_file_range2", "riscv_flush_icache")
    named = [pair for pair in defined if pair[0] not in skipped]
    calls = [(n, int(nr)) for n, nr in named if not TIME64.search(n)]
    assert len(calls) > 250
    assert [(n, nr) for n, nr in calls if table("arm64").get(nr) != n] == []


def test_names_say_how_a_call_came_in() -> None:
    assert name_of(0, False, "x86_64") == "read"
    assert name_of(3, True, "x86_64") == "compat:read"
    assert name_of(0x40000000, False, "x86_64") == "x32:read"
    assert name_of(0x40000000 | 520, False, "x86_64") == "x32:execve"
    assert name_of(63, False, "aarch64") == "read"
    assert name_of(3, True, "arm64") == "compat:read"
    assert name_of(0xF0005, True, "arm64") == "compat:set_tls"


def test_numbers_without_a_name() -> None:
    assert name_of(999, False, "x86_64") == "syscall_999"
    assert name_of(-1, False, "x86_64") == "syscall_-1"
    assert name_of(9999, True, "x86_64") == "compat:syscall_9999"
    assert name_of(0x40000000 | 600, False, "x86_64") == "x32:syscall_600"
    assert name_of(1, False, "riscv64") == "syscall_1"


def test_numbers_of_names() -> None:
    assert nr_of("getppid", "x86_64") == 110
    assert nr_of("getppid", "aarch64") == 173
    assert nr_of("open", "arm64") is None
    assert nr_of("socketcall", "x86_64") is None


def test_errno_names() -> None:
    assert errno_name(errno.EAGAIN) == "EAGAIN"
    assert errno_name(2) == "ENOENT"
    assert errno_name(95) == "EOPNOTSUPP"
    assert errno_name(512) == "ERESTARTSYS"
    assert errno_name(516) == "ERESTART_RESTARTBLOCK"
    assert errno_name(4000) == "errno_4000"
    # 41 and 58 are unused: they were EWOULDBLOCK and EDEADLOCK, now other errors' names.
    unnamed = [n for n in range(1, 134) if errno_name(n).startswith("errno_")]
    assert unnamed == [41, 58]
