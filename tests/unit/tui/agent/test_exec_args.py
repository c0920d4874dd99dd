# SPDX-License-Identifier: Apache-2.0
"""Hiding the arguments of programs: for good, and also those that were read already."""

from __future__ import annotations

import os
from typing import Any

import pytest

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.execs.probe import ExecProbe
from probes.execs.sample import ExecEvent, ExecSample, ExitEvent
from probes.host.privileges import User
from probes.live import start
from tui import cli
from tui.agent import command
from tui.agent.options import ServeOptions
from tui.agent.sd_notify import Notifier
from tui.agent.setup import Setup
from tui.settings import options

SECRET = ExecEvent(
    time=1.0,
    pid=2,
    ppid=1,
    uid=0,
    comm="curl",
    parent="sh",
    args=("curl", "-u", "me:secret"),
    truncated=False,
    ret=0,
    cgroup="/",
    path="/usr/bin/curl",
)
END = ExitEvent(time=2.0, pid=2, comm="curl", exit_code=0, signal=0, duration=1)


def test_what_is_hidden_stays_hidden() -> None:
    probe = ExecProbe()
    assert probe.params() == {"failed": True, "args": True}
    assert probe.set_option("args", True) is False
    # The kernel side has to be loaded anew: it must not read them.
    assert probe.set_option("args", False) is True
    assert probe.params() == {"failed": True, "args": False}
    probe.check_option("args", False)
    with pytest.raises(ProbeError, match="stay so"):
        probe.set_option("args", True)
    probe.release()
    with pytest.raises(ProbeError, match="stay so"):
        probe.check_option("args", True)


@pytest.mark.parametrize(("option", "value"), [("args", 0), ("args", None), ("argv", False)])
def test_what_is_no_option(option: str, value: Any) -> None:
    with pytest.raises(ProbeError, match="no option"):
        ExecProbe().check_option(option, value)


def test_what_was_read_already_is_hidden() -> None:
    probe = ExecProbe()
    probe._events = [SECRET, END]
    probe.set_option("args", False)
    sample = probe.read(0.0)
    assert sample.events[1] == END
    contract = ExecProbe.contract(None, ExecSample(state="on", events=sample.events), 1.0)
    started, _ = contract["events"]
    assert started["args"] is None
    assert started["args_hidden"] is True
    assert started["path"] == "/usr/bin/curl"
    assert "secret" not in str(contract)


def test_events_with_arguments_do_not_speak_of_hiding() -> None:
    contract = ExecProbe.contract(None, ExecSample(state="on", events=(SECRET,)), 1.0)
    assert "args_hidden" not in contract["events"][0]
    assert contract["events"][0]["args"] == ["curl", "-u", "me:secret"]


def test_the_plan_says_whether_to_read_them() -> None:
    for args in (True, False):
        assert ExecProbe.plan({"args": args}).defines["PT_ARGS"] == int(args)
    assert ExecProbe.plan({}).defines["PT_ARGS"] == 1


def test_the_setting() -> None:
    assert options.resolve({"no-args": True}, {}, live=True).hide_args
    assert options.resolve({}, {"no-args": ("file", True)}, live=True).hide_args
    assert not options.resolve({}, {}, live=True).hide_args


@pytest.mark.parametrize("hide", [True, False])
def test_the_broker_knows_the_setting_in_every_command(
    monkeypatch: pytest.MonkeyPatch, hide: bool
) -> None:
    """The process that asks for probes is the one that is not trusted with it."""
    given: list[dict[str, Any]] = []

    def open_live(paths: object, **more: Any) -> None:
        given.append(more)

    monkeypatch.setattr(kernel, "may_load", lambda: True)
    monkeypatch.setattr(start, "open_live", open_live)
    chosen = options.resolve({"no-args": hide}, {}, live=True)
    user = User(65534, 65534, None)
    cli._open_live(chosen)
    command._open(
        Setup(chosen, ServeOptions(), cli._probe_options(chosen), user, Notifier({}), user)
    )
    for more in given:
        assert more["fixed"] == ({"execs": {"args": False}} if hide else {})
        assert ("execs" in more["options"]) is hide
    assert len(given) == 2
    for fd in given[1]["helpers"]["page"].files:
        os.close(fd)
