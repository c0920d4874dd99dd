# SPDX-License-Identifier: Apache-2.0
"""The configuration file: found where it should be, and wrong ones are one clear line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tui.settings import config_file as config
from tui.settings.options import resolve
from tui.settings.validators import UsageError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "probetop").mkdir()
    return tmp_path


def put(home: Path, text: str | bytes) -> Path:
    path = home / "probetop" / "config.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_no_file_is_no_configuration(home: Path) -> None:
    assert config.load(None) == {}


def test_settings_hold_and_the_command_line_wins(home: Path) -> None:
    text = 'interval = 2\nprobes = ["execs"]\nascii = true\nuser = "root"\ncost = "always"\n'
    put(home, text + "latency = true\npid = 1\n")
    options = resolve({"interval": "0.5", "comm": "sh"}, config.load(None), live=True)
    assert options.interval == 0.5
    assert options.probes == ("execs",)
    assert options.ascii is True
    assert options.latency is True
    assert options.cost_always is True
    assert options.filters == (1, "sh", 0, None)
    assert resolve({}, config.load(None), live=True).interval == 2.0


def test_without_the_running_kernel_its_settings_are_not_even_checked(home: Path) -> None:
    put(home, "pid = 4000000\nascii = true\n")
    options = resolve({}, config.load(None), live=False)
    assert options.ascii is True
    assert options.filters.pid is None


def test_probes_as_text_and_as_list_are_the_same(home: Path) -> None:
    put(home, 'probes = "execs, syscalls"')
    assert resolve({}, config.load(None), live=True).probes == ("syscalls", "execs")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("interval = ", "cannot be read: Invalid value"),
        ("intervall = 1", "unknown key 'intervall'; did you mean interval?"),
        ("[interval]\nx = 1", "must be a number"),
        ("interval = true", "interval 'True': must be a number"),
        ('interval = "1"', "must be a number"),
        ("latency = 1", "latency '1': must be true or false; write latency = true"),
        ("probes = 5", "must be a string or a list of strings"),
        (b"\xff", "it is not UTF-8 text"),
        ("x = " + "[" * 5000, "cannot be read"),
        ("#" * (1 << 20) + "#", "larger than 1 MB"),
        ('"\x1b[2J" = 1', "cannot be read"),
        ('"\\u001b[2J" = 1', r"unknown key '\x1b[2J'"),
        ('config = "x"', "unknown key 'config'"),
    ],
)
def test_broken_files_name_file_and_key(home: Path, text: str | bytes, why: str) -> None:
    path = put(home, text)
    with pytest.raises(UsageError) as caught:
        config.load(None)
    line = f"{caught.value.why}; {caught.value.fix}"
    assert line.startswith(f"{path}: ")
    assert why in line
    assert line.isprintable()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("interval = 0", "interval '0': out of range"),
        ("interval = nan", "interval 'nan': out of range"),
        ('probes = ["syscals"]', "unknown probe 'syscals'"),
        ("probes = []", "no probe is named"),
        ("probes = [1]", "unknown probe '1'"),
        ('user = "no such one"', "user 'no such one': no such user"),
        ('cost = "never"', "cost 'never': unknown"),
    ],
)
def test_wrong_values_name_file_and_key(home: Path, text: str, why: str) -> None:
    path = put(home, text)
    with pytest.raises(UsageError) as caught:
        resolve({}, config.load(None), live=True)
    assert caught.value.why.startswith(f"{path}: ")
    assert why in caught.value.why
    assert caught.value.fix


def test_a_file_that_the_user_named_must_be_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, why in (("missing", "no such file"), (".", "a directory, not a file")):
        with pytest.raises(UsageError, match=why):
            config.load(str(tmp_path / name))
    assert config.load(str(tmp_path / "fifo")) == {}
    with pytest.raises(UsageError, match="null byte"):
        config.load("\0")


def test_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert config.default_path() == Path("/home/someone/.config/probetop/config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert config.default_path() == Path("/home/someone/.config/probetop/config.toml")


def test_under_sudo_it_is_the_one_who_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("HOME", "/root")
    # Debian and others: user 1 is daemon with the home /usr/sbin, elsewhere it differs.
    import pwd

    monkeypatch.setenv("SUDO_UID", "1")
    assert config.default_path().parent.parent.parent == Path(pwd.getpwuid(1).pw_dir)
    monkeypatch.setenv("SUDO_UID", "4000000000")
    assert config.default_path().is_relative_to("/root")
