# SPDX-License-Identifier: Apache-2.0
"""What the emulated machines are made of, tried without starting any."""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vm import kernels
from tests.vm.kernels import KERNELS
from tests.vm.machine import cpio


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is missing: install it")
def test_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    files = {"init": b"#!/bin/sh\n", "a/b/c": bytes(range(256)) * 5, "a/empty": b""}
    archive = cpio(files, ("proc", "a/d"))
    subprocess.run(["cpio", "-id", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
    made = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_dir()}
    assert made == {"proc", "a", "a/b", "a/d"}
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("compress", [lzma.compress, gzip.compress])
def test_kernel_is_taken_out_of_its_image(compress: Callable[[bytes], bytes]) -> None:
    kernel = b"\x7fELF" + bytes(5000)
    payload = compress(kernel)
    image = bytearray(2048)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 1024, len(payload))
    assert kernels.vmlinux(bytes(image) + payload) == kernel
    assert kernels.vmlinux(b"\x7fELF" + bytes(2000)) == b"\x7fELF" + bytes(2000)


def test_newest_kernel_for_real_machines() -> None:
    packages = """linux-image-6.1.0-9-amd64 linux-image-6.1.0-56-amd64 linux-image-amd64
        linux-image-6.1.0-56-cloud-amd64 linux-image-6.1.0-57-rt-amd64 linux-image-6.1.0-60-arm64
        linux-image-6.1.0-58-amd64-dbg linux-image-6.1.0-59-amd64-unsigned
        linux-image-6.12.9+deb12-amd64 linux-image-6.12.117+deb12-amd64
        linux-image-6.12.118+deb12-cloud-amd64 linux-image-6.120.1-amd64""".split()  # noqa: SIM905
    assert kernels.newest(packages, KERNELS["x86_64-6.1"]) == "linux-image-6.1.0-56-amd64"
    assert kernels.newest(packages, KERNELS["x86_64-6.12"]) == "linux-image-6.12.117+deb12-amd64"
    assert kernels.newest(packages, KERNELS["x86_64-7.3"]) is None


def test_commits_choose_two_kernels_in_turn() -> None:
    plain = {name for name, kernel in KERNELS.items() if not kernel.pmu}
    chosen = [kernels.turn(f"{number:040x}") for number in range(15)]
    assert len({frozenset(names) for names in chosen}) == 15
    for first, second, last in chosen:
        assert first != second
        assert {first, second} <= plain
        assert last == "arm64-6.12-pmu"
    assert [kernel.name for kernel in kernels.choose(["turn"])] in [list(n) for n in chosen]


def test_kernels_are_chosen_by_name() -> None:
    def names(*words: str) -> list[str]:
        return [kernel.name for kernel in kernels.choose(words)]

    assert names("default") == ["x86_64-6.12", "arm64-6.12", "arm64-6.12-pmu"]
    assert names("arm64-6.1", "default", "arm64-6.1") == ["arm64-6.1", *kernels.DEFAULT]
    assert len(names("all")) == 7
    with pytest.raises(ValueError, match=r"no kernel is called '6\.1': choose from x86_64-5\.10"):
        kernels.choose(["6.1"])
