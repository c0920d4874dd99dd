# SPDX-License-Identifier: Apache-2.0
"""Dashboards of another machine, over ssh and from an agent, with 200 ms between, and a cut."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.harness import eventually, held_programs
from tests.kernel.network import Namespace, Relay, Sshd
from tests.kernel.terminal import PROBETOP, Tty
from tests.paths import ROOT

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.usefixtures("steady_calls"),  # what is shown of a machine that does nothing else
]

COMMAND = f"env PYTHONPATH={ROOT} {sys.executable} -P -m tui.cli"
LONG = 60.0
OVER_SSH = ("--remote-command", COMMAND, "--budget", "0")
"""On a busy machine the budget would take programs away."""
TOKEN = "a-token-for-the-test-only"


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as made:
        yield made


@pytest.fixture
def ssh(namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A target that leads to the other machine, slowly."""
    sshd, relay = Sshd(namespace, tmp_path), Relay(namespace.far, 22)
    monkeypatch.setenv("PATH", sshd.path)
    yield f"ssh://root@127.0.0.1:{relay.port}"
    relay.close()
    sshd.close()


@pytest.fixture
def agent(namespace: Namespace, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A target that leads to an agent there, and the file of its token."""
    tokens, mine = tmp_path / "tokens", tmp_path / "mine"
    for file, text in ((tokens, f"control {TOKEN}\n"), (mine, f"{TOKEN}\n")):
        file.write_text(text)
        file.chmod(0o600)
    options = ["--listen", f"{namespace.far}:9435", "--token-file", str(tokens), "--insecure"]
    options += ["--budget", "0"]
    command = [sys.executable, "-P", "-m", "tui.cli", "serve", "--linger", "1", *options]
    process = subprocess.Popen(
        namespace.inside(*command), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "serving on" in process.stderr.readline()
    relay = Relay(namespace.far, 9435)
    yield f"http://127.0.0.1:{relay.port}", str(mine)
    relay.close()
    process.terminate()
    process.wait(10)
    process.stderr.close()


def attach(*arguments: str, size: tuple[int, int] = (120, 40)) -> Tty:
    return Tty(*PROBETOP, "attach", *arguments, size=size)


def far_side(namespace: Namespace) -> set[int]:
    """The processes of `stream --frames` that run there."""
    return {pid for pid in namespace.processes() if b"--frames" in command_line(pid)}


def command_line(pid: int) -> bytes:
    """What a process was started with; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def programs(namespace: Namespace) -> set[int]:
    """The programs that are held there."""
    return set().union(*(held_programs(pid) for pid in namespace.processes()))


def loaded(tty: Tty, namespace: Namespace) -> set[int]:
    """The far programs, once there come no more."""
    found: list[set[int]] = []

    def level() -> bool:
        tty.read(1.5)
        found.append(programs(namespace))
        # On a busy machine a probe may take longer to load than two readings are apart, or wait
        # for the one before it.
        done = not shown(tty, r"\bstarting\b|\boff: press 4\b")
        return done and len(found) > 1 and found[-1] == found[-2] != set()

    later(tty, "all probes are on", level)
    return found[-1]


def later(tty: Tty, what: str, condition: Callable[[], object]) -> None:
    """As `until`, with more patience: links are given up after a while only."""
    end = time.monotonic() + LONG
    while not condition():
        tty.read(0.2)
        assert time.monotonic() < end, f"{what}:\n" + "\n".join(tty.grid.lines())


def shown(tty: Tty, pattern: str) -> bool:
    return any(re.search(pattern, line) for line in tty.grid.lines())


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_the_dashboard_of_another_machine_over_ssh(
    ssh: str, namespace: Namespace, size: tuple[int, int]
) -> None:
    with attach(ssh, *OVER_SSH, size=size) as tty:
        tty.shows("openat")
        before = loaded(tty, namespace)
        tty.type("4")
        tty.shows("off: press 4")
        eventually("the far probe is detached", lambda: programs(namespace) < before)
        tty.type("4")
        eventually("the far probe is back", lambda: len(programs(namespace)) == len(before))
        tty.type("F")
        tty.shows("count only:")
        tty.type("comm=nobody-has-this\r")
        tty.shows("only comm=nobody-ha")
        tty.type("q")
        tty.settle()
        assert tty.ended() == 0
    eventually("nothing is left there", lambda: not far_side(namespace))


def test_a_target_of_the_far_machine(ssh: str, namespace: Namespace) -> None:
    with attach(ssh, *OVER_SSH, "-f", "syscall:getppid") as tty:
        tty.shows("syscall:getppid")
        tty.type("f")
        tty.shows("find:")
        tty.type("syscall:getuid")
        tty.shows("a system call, from its start")
        tty.type("\r")
        tty.shows("syscall:getuid")
        tty.type("q")
        assert tty.ended() == 0
    eventually("nothing is left there", lambda: not far_side(namespace))


def test_a_cut_shows_how_old_the_data_is_and_heals(ssh: str, namespace: Namespace) -> None:
    with attach(ssh, *OVER_SSH) as tty:
        tty.shows("openat")
        first = far_side(namespace)
        namespace.cut()
        later(tty, "it says how old the data is", lambda: shown(tty, r"no data for \d+ s"))
        assert shown(tty, "openat")
        later(tty, "it is given up", lambda: shown(tty, "reconnecting"))
        namespace.heal()
        later(tty, "the link is back", lambda: not shown(tty, r"no data for"))
        later(tty, "there is another far side", lambda: far_side(namespace) - first)
        tty.type("q")
        tty.settle()
        assert tty.ended() == 0
    eventually("nothing is left there", lambda: not far_side(namespace), LONG)


def test_a_dead_network_leaves_nothing_attached(ssh: str, namespace: Namespace) -> None:
    with attach(ssh, *OVER_SSH) as tty:
        tty.shows("openat")
        namespace.cut()
        tty.type("q")
        assert tty.ended() == 0
    assert far_side(namespace)
    eventually("the far side has noticed", lambda: not far_side(namespace), LONG)


def test_what_is_wrong_with_ssh_is_one_line(ssh: str, namespace: Namespace) -> None:
    for command, word in (
        ("probetop-that-is-not-there", "probetop is not found there"),
        ("sh -c 'echo sudo: a password is required >&2; exit 1'", "sudo: a password is required"),
    ):
        with attach(ssh, "--remote-command", command) as tty:
            tty.shows(word)
            assert tty.ended() == 1
            assert "\x1b[?1049h" not in tty.text
    with attach(ssh, *OVER_SSH, "-p", "999999999") as tty:
        tty.shows("no such process")
        assert tty.ended() == 1
    eventually("nothing is left there", lambda: not far_side(namespace))


def test_the_dashboard_of_an_agent(agent: tuple[str, str], namespace: Namespace) -> None:
    target, token = agent
    with attach(target) as tty:
        tty.shows("give its token with --token-file")
        assert tty.ended() == 1
    with attach(target, "--token-file", token) as tty:
        tty.shows("openat")
        before = loaded(tty, namespace)
        tty.type("4")
        tty.shows("off: press 4")
        # On a busy machine another probe may be loaded only now.
        later(tty, "the far probe is detached", lambda: before - programs(namespace))
        off = programs(namespace)
        tty.type("4")
        later(tty, "the far probe is back", lambda: programs(namespace) - off)
        namespace.cut()
        later(tty, "it says how old the data is", lambda: shown(tty, r"no data for \d+ s"))
        namespace.heal()
        later(tty, "the link is back", lambda: not shown(tty, r"no data for"))
        tty.type("q")
        tty.settle()
        assert tty.ended() == 0
    eventually("nobody watches", lambda: not programs(namespace), LONG)
