# SPDX-License-Identifier: Apache-2.0
"""Empty functions: the code that is called is the code that a probe would be put on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from probes.core import kernel
from probes.host.open_file import OpenFile
from probes.uprobes import empty_functions
from probes.uprobes.empty_functions import ENDBR, KINDS, OTHER, PUSH, function, kind_of

x86 = pytest.mark.skipif(kernel.arch() != "x86_64", reason="these are instructions of x86_64")


@pytest.mark.skipif(kernel.arch() is None, reason="no machine code for this machine")
@pytest.mark.parametrize("kind", KINDS)
def test_the_function_is_in_the_file_and_returns(kind: str) -> None:
    place, call = function(kind)
    path = Path(place.path)
    try:
        code = (
            empty_functions._X86[kind] if kernel.arch() == "x86_64" else empty_functions._ARM[kind]
        )
        assert path.read_bytes()[place.offset :].startswith(code)
        for _ in range(3):
            call()
        maps = Path("/proc/self/maps").read_text()
        mapped = [line for line in maps.splitlines() if "probetop-empty" in line]
        assert mapped
        # Nothing of it may be written to: what is executed stays as it is.
        assert all(line.split()[1] == "r-xp" for line in mapped)
    finally:
        os.close(int(path.name))


@x86
@pytest.mark.parametrize("kind", KINDS)
def test_a_function_is_of_its_own_kind(kind: str) -> None:
    place, _ = function(kind)
    try:
        file = OpenFile(os.dup(int(Path(place.path).name)), place.path)
        assert kind_of(file, place.offset) == kind
    finally:
        os.close(int(Path(place.path).name))


@x86
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (b"\x55\x48\x89\xe5", PUSH),  # push %rbp
        (b"\x53\x48\x83\xec", PUSH),  # push %rbx
        (b"\x41\x57\x41\x56", PUSH),  # push %r15
        (b"\x41\x89\xc0\x90", OTHER),  # mov %eax,%r8d
        (b"\x90\x90\x90\x90", PUSH),  # nop, emulated too
        (b"\xf3\x0f\x1e\xfa", ENDBR),
        (b"\xf3\x0f\x1e\xfb", OTHER),  # endbr32
        (b"\x48\x83\xec\x08", OTHER),  # sub $8,%rsp
        (b"\x58\xc3\x00\x00", OTHER),  # pop %rax
        (b"\x55", PUSH),  # the last byte of a file
        (b"", OTHER),
        (b"\x41", OTHER),
    ],
)
def test_kinds_of_instructions(tmp_path: Path, code: bytes, kind: str) -> None:
    path = tmp_path / "code"
    path.write_bytes(b"\xcc" * 5 + code)
    assert kind_of(str(path), 5) == kind


def test_a_file_that_cannot_be_read_is_of_no_kind(tmp_path: Path) -> None:
    assert kind_of(str(tmp_path / "none"), 0) == OTHER


def test_other_machines_have_one_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "code"
    path.write_bytes(b"\x55\xc3")
    monkeypatch.setattr(kernel, "arch", lambda: "arm64")
    assert kind_of(str(path), 0) == OTHER
    assert set(empty_functions._ARM) == {*KINDS, empty_functions.NOP5}
