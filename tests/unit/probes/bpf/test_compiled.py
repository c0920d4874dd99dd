# SPDX-License-Identifier: Apache-2.0
"""Compiled programs in files: whole and trusted, or not there."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from probes.bpf import object_cache
from probes.bpf.object_cache import (
    KERNEL_FUNCTIONS,
    Compiled,
    MapShape,
    key_of,
    load,
    store,
    with_functions,
    with_maps,
)

LDDW, MOV = 0x18, 0xB7
MADE = Compiled(
    (MapShape("rows", 2, 4, 64, 1024, 1024), MapShape("events", 27, 0, 0, 4096, 0)),
    {"on_exit": bytes(range(64)), "on_enter": b""},
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps compiled programs")


def wide(value: int, source: int) -> bytes:
    return struct.pack("<BBhI", LDDW, 1 | source << 4, 0, value) + struct.pack("<BBhI", 0, 0, 0, 0)


def test_references_to_maps_are_replaced_and_nothing_else() -> None:
    mov = struct.pack("<BBhI", MOV, 0, 0, 7)
    code = wide(7, 1) + mov + wide(7, 0) + wide(9, 1) + mov
    assert with_maps(code, {7: 0, 9: 1}) == wide(0, 1) + mov + wide(7, 0) + wide(1, 1) + mov
    with pytest.raises(KeyError):
        with_maps(code, {7: 0})
    # The second half of a wide load is no instruction, whatever it looks like.
    half = struct.pack("<BBhI", LDDW, 0, 0, 5) + struct.pack("<BBhI", LDDW, 1 << 4, 0, 9)
    assert with_maps(half + mov, {}) == half + mov


def test_calls_of_the_kernels_functions_are_marked_and_no_others() -> None:
    def call(number: int, source: int = 0) -> bytes:
        return struct.pack("<BBhI", 0x85, source << 4, 0, number)

    known, helper = KERNEL_FUNCTIONS + 70_000, call(14)
    code = helper + call(known) + wide(known, 0) + call(known, 1) + call(0xFFFFFFFF)
    made = helper + call(70_000, 2) + wide(known, 0) + call(known, 1) + call(0xFFFFFFFF)
    assert with_functions(code) == made
    half = struct.pack("<BBhI", LDDW, 0, 0, 5) + call(known)
    assert with_functions(half) == half


def test_a_key_is_of_all_that_matters() -> None:
    keys = {
        key_of("source", ["-DA=1"], "bcc 1"),
        key_of("source ", ["-DA=1"], "bcc 1"),
        key_of("source", ["-DA=2"], "bcc 1"),
        key_of("source", ["-DA=1", "-DB=1"], "bcc 1"),
        key_of("source", ["-DA=1"], "bcc 2"),
    }
    assert len(keys) == 5
    assert key_of("source", ["-DA=1"], "bcc 1") in keys


@needs_root
def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    assert load("k", folder) is None
    store("k", MADE, folder)
    assert load("k", folder) == MADE
    assert load("other", folder) is None
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    assert oct((folder / "k").stat().st_mode & 0o777) == "0o600"
    assert [path.name for path in folder.iterdir()] == ["k"]


@needs_root
@pytest.mark.parametrize("cut", [0, 1, 31, 32, 40, -1])
def test_a_damaged_file_is_none(tmp_path: Path, cut: int) -> None:
    store("k", MADE, tmp_path)
    path = tmp_path / "k"
    path.write_bytes(path.read_bytes()[:cut])
    assert load("k", tmp_path) is None


@needs_root
def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    store("k", MADE, tmp_path)
    path = tmp_path / "k"
    data = path.read_bytes()
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert load("k", tmp_path) is None


@needs_root
def test_what_others_could_have_written_is_not_trusted(tmp_path: Path) -> None:
    store("k", MADE, tmp_path)
    path = tmp_path / "k"
    for place, mode in ((path, 0o620), (path, 0o602), (tmp_path, 0o770), (tmp_path, 0o707)):
        before = place.stat().st_mode
        place.chmod(mode)
        assert load("k", tmp_path) is None, (place, mode)
        place.chmod(before)
    assert load("k", tmp_path) == MADE
    os.chown(path, 1, 1)
    assert load("k", tmp_path) is None
    os.chown(path, 0, 0)
    os.chown(tmp_path, 1, 1)
    assert load("k", tmp_path) is None
    # Nor is anything written there.
    path.unlink()
    store("k", MADE, tmp_path)
    assert not path.exists()


@needs_root
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    store("k", MADE, tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "k")
    assert load("link", tmp_path) is None


@needs_root
def test_the_oldest_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_cache, "MOST_FILES", 3)
    for number in range(3):
        store(f"k{number}", MADE, tmp_path)
        os.utime(tmp_path / f"k{number}", (1000 + number, 1000 + number))
    # Used just now, so that it stays.
    assert load("k0", tmp_path) == MADE
    store("k3", MADE, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"k0", "k2", "k3"}


def test_a_place_that_cannot_be_written_is_nobodys_trouble(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    store("k", MADE, file / "below")
    assert load("k", file / "below") is None
