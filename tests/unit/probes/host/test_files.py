# SPDX-License-Identifier: Apache-2.0
"""Opening what somebody named: only regular files, only so many bytes, nothing that waits."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from probes.core.errors import ProbeError
from probes.host import files
from probes.host.files import open_regular, read_regular


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1000)
    assert read_regular(path, 1000) == b"x" * 1000
    with pytest.raises(ProbeError, match="larger than 1 kB"):
        read_regular(path, 999)
    # What is said to be empty may hold anything.
    assert read_regular("/proc/self/comm", 1000).strip()
    with pytest.raises(ProbeError, match="larger"):
        read_regular("/proc/self/smaps", 1000)


@pytest.mark.parametrize(
    ("path", "kind"), [("/dev/zero", "a device"), ("/", "a directory"), ("fifo", "a pipe"),
                       ("socket", "a socket"), ("link", "a device")],
)  # fmt: skip
def test_anything_else_is_named(tmp_path: Path, path: str, kind: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(ProbeError, match=kind):
        open_regular(tmp_path / path)


def test_a_device_is_not_even_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """To open a watchdog starts it, and to open a tape rewinds it."""
    flags: list[int] = []
    real = os.open

    def noted(path: str, how: int, *more: int) -> int:
        flags.append(how)
        return real(path, how, *more)

    monkeypatch.setattr(os, "open", noted)
    with pytest.raises(ProbeError):
        open_regular("/dev/zero")
    assert flags
    assert all(how & os.O_PATH for how in flags)


def test_a_path_that_leads_elsewhere_meanwhile_is_of_no_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"checked")
    (tmp_path / "b").symlink_to("/dev/zero")
    real = os.fstat

    def flipped(fd: int) -> os.stat_result:
        found = real(fd)
        if (tmp_path / "b").is_symlink():
            os.replace(tmp_path / "b", path)
        return found

    monkeypatch.setattr(os, "fstat", flipped)
    assert read_regular(path, 100) == b"checked"
    assert path.is_symlink()


def test_a_pipe_gives_what_comes_until_its_end() -> None:
    """As `<(command)` of a shell: what it writes comes some time later."""
    reading, writing = os.pipe()

    def write() -> None:
        for _ in range(3):
            os.write(writing, b"abc")
        os.close(writing)

    timer = threading.Timer(0.2, write)
    timer.start()
    assert read_regular(f"/dev/fd/{reading}", 100, pipe=True) == b"abcabcabc"
    os.close(reading)
    timer.join()


def test_a_pipe_whose_other_end_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIPE_SECONDS", 0.1)
    reading, writing = os.pipe()
    with pytest.raises(TimeoutError):
        read_regular(f"/dev/fd/{reading}", 100, pipe=True)
    os.write(writing, b"x" * 200)
    with pytest.raises(ProbeError, match="larger"):
        read_regular(f"/dev/fd/{reading}", 100, pipe=True)
    os.close(reading)
    os.close(writing)


def test_a_file_of_secrets_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"secret")
    path.chmod(0o644)
    with pytest.raises(ProbeError, match="others may read it") as caught:
        read_regular(path, 100, forbidden=0o077)
    assert caught.value.fix == f"chmod 600 {path}"
    path.chmod(0o600)
    assert read_regular(path, 100, forbidden=0o077) == b"secret"
