# SPDX-License-Identifier: Apache-2.0
"""`probetop serve` as the image starts it, and as the systemd unit does: what deploy/ says."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from probes.core import kernel
from tests.kernel import container, image
from tests.kernel.container import Settings, documented_by
from tests.kernel.harness import DEADLINE, eventually, status_of
from tests.paths import ROOT

pytestmark = pytest.mark.kernel


def inside(pid: int, built: image.Stage, *command: str) -> subprocess.CompletedProcess[str]:
    """A command in the namespaces of a container's process, as `podman exec` has it."""
    enter = ["nsenter", "--target", str(pid), "--mount", "--net", "env", "-i"]
    words = [f"{name}={value}" for name, value in built.env.items()]
    return subprocess.run([*enter, *words, *command], capture_output=True, text=True, check=False)


GET = (
    "import sys, urllib.request as u\n"
    "asked = u.Request(sys.argv[1])\n"
    "if sys.argv[2]: asked.add_header('Authorization', 'Bearer ' + sys.argv[2])\n"
    "print(u.urlopen(asked, timeout=15).read().decode())\n"
)


def get(pid: int, built: image.Stage, path: str, token: str) -> Any:
    """What the agent in a container answers; an empty token is not sent."""
    done = inside(pid, built, "python", "-c", GET, f"http://127.0.0.1:9435{path}", token)
    assert done.returncode == 0, done.stderr[-500:]
    return json.loads(done.stdout)


@contextmanager
def started(settings: Settings, built: image.Stage, *before: str) -> Iterator[int]:
    """An agent that is well: the id of its process, which ends by SIGTERM, without complaint."""
    process = subprocess.Popen(
        [*before, *container.command(settings)], cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        pid = process.pid if not before else eventually("traced", lambda: children(process.pid))[0]
        well = ["python", *built.health[1:]]
        eventually("well", lambda: inside(pid, built, *well).returncode == 0)
        yield pid
        os.kill(pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.communicate()


def children(pid: int) -> list[int]:
    text = kernel.read_text(f"/proc/{pid}/task/{pid}/children") or ""
    return [int(word) for word in text.split()]


def probes_on(pid: int, built: image.Stage, token: str) -> bool:
    probes = get(pid, built, "/v1/probes", token)["probes"]
    states = {probe["name"]: probe["state"] for probe in probes}
    return bool(states["syscalls"] == states["execs"] == "on")


def test_the_agent_serves_as_documented_by(built: image.Stage) -> None:
    """The image's own command, its health check, and the doctor over HTTP."""
    settings = documented_by(built, *built.entrypoint, *built.command)
    with started(settings, built) as pid:
        eventually("probes are on", lambda: probes_on(pid, built, container.TOKEN))
        assert get(pid, built, "/v1/doctor", container.TOKEN)["ok"] is True
        refused = inside(pid, built, "python", "-c", GET, "http://127.0.0.1:9435/v1/probes", "")
        assert "401" in refused.stderr
        status = status_of(pid)
        assert set(status["Uid"].split()) == {"65534"}
        assert status["CapEff"].strip("0") == ""
        (broker,) = children(pid)
        held = kernel.capabilities("Eff", broker)
        assert held == frozenset(settings.capabilities)


UNIT = ROOT / "deploy" / "systemd" / "probetop.service"
# What MemoryDenyWriteExecute= does, and then the rest of the command line.
NO_NEW_CODE = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


def setting(name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", UNIT.read_text(), re.M)
    assert found is not None
    return found[1]


def allowed() -> set[str]:
    """The system calls that the service's filter lets through."""
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True
    ).stdout
    sets: dict[str, list[str]] = {}
    for line in re.sub("\x1b\\[[0-9;]*m", "", listed).splitlines():
        if line.startswith("@"):
            members = sets[line.strip()] = []
        elif line.strip() and not line.strip().startswith("#") and sets:
            members.append(line.strip())

    def expanded(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        return {call for member in sets[name] for call in expanded(member)}

    # Every filter takes in what a process cannot do without.
    words = [*setting("SystemCallFilter").split(), "@default"]
    return {call for word in words for call in expanded(word)}


def test_the_service_works_with_what_its_unit_allows(built: image.Stage, tmp_path: Path) -> None:
    """Never root, with ambient capabilities, without new code, and within its system calls."""
    for tool in ("strace", "systemd-analyze"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: test.sh installs it")
    names = setting("AmbientCapabilities").split()
    ambient = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in names)
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    become += [f"--inh-caps={ambient}", f"--ambient-caps={ambient}"]
    command = [*become, "python3", "-c", NO_NEW_CODE, "probetop", "serve"]
    settings = documented_by(built, *command)
    # systemd has these until it has become the service's user.
    settings.capabilities = [*names, "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"]
    calls = tmp_path / "calls"
    trace = ["strace", "-f", "-qq", "-o", str(calls)]
    with started(settings, built, *trace) as pid:
        eventually("probes are on", lambda: probes_on(pid, built, ""))
        (broker,) = children(pid)
        assert kernel.capabilities("Eff", broker) == frozenset(names)
        assert status_of(broker)["Uid"].split() == ["65534"] * 4
        assert status_of(pid)["CapEff"].strip("0") == ""
    # The files of the service begin where it does.
    text = calls.read_text(errors="replace")
    text = text[text.index('execve("/opt/probetop/bin/probetop"') :]
    # strace names a call by a number that no call has, where a thread is killed as it begins one.
    made = set(re.findall(r"^\d+ +(?!syscall_0xf)(\w+)\(", text, re.M))
    assert {"bpf", "perf_event_open"} <= made
    assert made - allowed() == set()
