# SPDX-License-Identifier: Apache-2.0
"""deploy/Containerfile as it is documented: built, and run with what it says and no more.

There need be no container engine: tests.kernel.image builds, tests.kernel.container runs, in
namespaces of its own. Then each capability and mount is taken away, and the doctor names it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probes.core import kernel
from probes.host.cgroups import cgroup_of
from tests.kernel import container, image
from tests.kernel.container import CONTAINERFILE, Settings, documented_by
from tests.kernel.harness import DEADLINE, Work, eventually, status_of
from tests.paths import ROOT

pytestmark = pytest.mark.kernel

NUMBERS = {"x86_64": {"bpf": 321, "perf_event_open": 298},
           "aarch64": {"bpf": 280, "perf_event_open": 241}}  # fmt: skip
Change = Callable[[Settings], object]
STREAM = ["probetop", "stream", "--run-as", "nobody", "--interval", "0.5"]
CALLS = 4321


def doctor(built: image.Stage, change: Change | None = None) -> dict[str, Any]:
    """What the doctor says in a container: its checks by name, and `ok`."""
    settings = documented_by(built, "probetop", "doctor", "--json")
    if change is not None:
        change(settings)
    done = container.run(settings)
    assert done.stderr == "" or "bpf:" in done.stderr, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return {check["name"]: check for check in report["checks"]} | {"ok": report["ok"]}


def stream(settings: Settings, work: Callable[[], object], status: int = 0) -> list[dict[str, Any]]:
    """The objects that a container prints until `work`, begun after the first, is in them.

    It ends with `status`.
    """
    process = subprocess.Popen(
        container.command(settings), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        first = process.stdout.readline()
        if first:
            work()
        rest, errors = process.communicate(timeout=DEADLINE * 3)
    assert first, errors
    assert process.returncode == status, errors
    return [json.loads(line) for line in (first, *rest.splitlines())]


def calls_of(objects: list[dict[str, Any]], pid: int) -> int:
    rows = [row for obj in objects for row in obj["probes"]["syscalls"]["processes"]]
    return sum(row["count"] for row in rows if row["pid"] == pid)


def test_the_default_panes_run_as_documented_by(built: image.Stage) -> None:
    found = doctor(built)
    bad = {name: found[name]["detail"] for name in found if name != "ok" and not found[name]["ok"]}
    assert found["ok"] is True
    # What this kernel has not or harms, and what is documented to take one capability more.
    more = {"kprobes", "fentry", "hardware PMU", "run statistics", "USDT", "JIT"}
    assert set(bad) <= more | {"return probes", "probes at nops"}, bad
    assert found["BCC"]["detail"].endswith("/usr/lib/python3/dist-packages")
    assert found["run statistics"]["ok"] is False
    assert "SYS_ADMIN" in found["run statistics"]["fix"]


def test_nothing_of_the_build_is_left(built: image.Stage) -> None:
    root = built.root
    assert not list(root.glob("opt/probetop/lib/python3*/site-packages/pip*"))
    assert not list(root.glob("usr/bin/*gcc*"))
    assert not list(root.glob("usr/include/*.h"))
    assert not list(root.glob("usr/src/linux*"))
    assert not (root / "src").exists()


def test_a_workload_of_the_machine_is_counted(built: image.Stage, calls: Path) -> None:
    """All of it: from the container's BCC, in the container's root, with its capabilities."""
    settings = documented_by(built, *STREAM, "--seconds", "4", "--probes", "syscalls,execs,pmc")
    with Work(calls, "getppid", str(CALLS)) as work:
        seen: list[int] = []

        def both() -> None:
            work.work()
            done = subprocess.run(["/bin/sh", "-c", "echo $$"], capture_output=True, check=True)
            seen.append(int(done.stdout))

        objects = stream(settings, both)
        pid = work.pid
    rows = [row for obj in objects for row in obj["probes"]["syscalls"]["rows"]]
    assert sum(row["count"] for row in rows if row["syscall"] == "getppid") >= CALLS
    assert CALLS <= calls_of(objects, pid) < CALLS + 100
    events = [event for obj in objects for event in obj["probes"]["execs"]["events"]]
    (shell,) = [e for e in events if e["type"] == "exec" and e["pid"] == seen[0]]
    assert (shell["args"], shell["comm"]) == (["/bin/sh", "-c", "echo $$"], "sh")
    assert shell["cgroup"] == cgroup_of(os.getpid())
    assert all(obj["probes"]["pmc"]["state"] == "on" for obj in objects)


def as_it_is(settings: Settings) -> None:
    """Just what is documented."""


def with_admin(settings: Settings) -> None:
    settings.capabilities.append("CAP_SYS_ADMIN")


def with_all(settings: Settings) -> None:
    """With what is documented as more."""
    line = container.documented(CONTAINERFILE, "To see what probes cost")
    settings.capabilities += [f"CAP_{name}" for name in re.findall("--cap-add ([A-Z_]+)", line)]


def traced(built: image.Stage, program: Path, change: Change, status: int = 0) -> dict[str, Any]:
    """The target of a function of a program that only the machine has, after 50 calls of it."""
    with Work(program, "shared", "50") as work:
        spec = f"uprobe:/proc/{work.pid}/root{program}:shared"
        command = [*STREAM, "--seconds", "3", "--probes", "latency", "-f", spec]
        settings = documented_by(built, *command)
        change(settings)
        objects = stream(settings, work.work, status)
    targets = [obj["probes"]["latency"]["targets"][0] for obj in objects]
    return {**targets[-1], "count": sum(target["count"] or 0 for target in targets)}


def test_functions_of_programs_elsewhere_are_traced(
    built: image.Stage, program: Callable[[str], Path]
) -> None:
    older = kernel.version() < (6, 6, 0)
    assert traced(built, program("functions"), with_admin if older else as_it_is)["count"] == 50


def refused(built: image.Stage, program: Path, change: Change) -> dict[str, Any]:
    """As `traced`, where nothing can be measured: the only target fails."""
    return traced(built, program, change, status=1)


def test_which_takes_a_capability(built: image.Stage, program: Callable[[str], Path]) -> None:
    target = refused(built, program("functions"), without("CAP_SYS_PTRACE"))
    assert target["count"] == 0
    assert "cannot be read as" in target["why"]
    assert "CAP_SYS_PTRACE" in target["fix"]


def test_and_another_one_where_only_the_owner_may_read(
    built: image.Stage, program: Callable[[str], Path]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        private = Path(directory, "functions")
        shutil.copy2(program("functions"), private)
        os.chown(directory, 65534, 65534)
        assert "cannot be read as" in refused(built, private, as_it_is)["why"]
        # The way through the process leads past the directory.
        assert traced(built, private, with_admin)["count"] == 50
        os.chown(private, 65534, 65534)
        private.chmod(0o700)
        assert "cannot be read as" in refused(built, private, with_admin)["why"]
        assert traced(built, private, with_all)["count"] == 50


def without(capability: str) -> Change:
    return lambda settings: settings.capabilities.remove(capability)


def alone(kind: str) -> Change:
    return lambda settings: settings.host.remove(kind)


def refusing(call: str) -> Change:
    return lambda settings: settings.refused.append(NUMBERS[os.uname().machine][call])


NAMED: dict[str, tuple[Change, str, str]] = {
    "bpf": (without("CAP_BPF"), "privileges", "--cap-add BPF"),
    "perfmon": (without("CAP_PERFMON"), "privileges", "--cap-add PERFMON"),
    "setuid": (without("CAP_SETUID"), "change of user", "--cap-add SETUID"),
    "setgid": (without("CAP_SETGID"), "change of user", "--cap-add SETGID"),
    "setpcap": (without("CAP_SETPCAP"), "change of user", "--cap-add SETPCAP"),
    "ptrace": (without("CAP_SYS_PTRACE"), "other processes", "--cap-add SYS_PTRACE"),
    "tracing": (lambda s: s.volumes.clear(), "tracefs", "--volume /sys/kernel/tracing:"),
    "pids": (alone("pid"), "process ids", "--pid host"),
    "seccomp bpf": (refusing("bpf"), "seccomp", "--security-opt seccomp=unconfined"),
    "seccomp perf": (refusing("perf_event_open"), "seccomp", "--security-opt seccomp="),
}


def test_every_documented_capability_and_mount_is_tried(built: image.Stage) -> None:
    settings = documented_by(built)
    names = {name.removeprefix("CAP_").removeprefix("SYS_") for name in settings.capabilities}
    assert {name.lower() for name in names} <= set(NAMED)
    # Who may ask is not for the doctor.
    targets = [volume[1] for volume in settings.volumes]
    assert targets == ["/sys/kernel/tracing", container.TOKENS]
    assert set(settings.host) == {"pid", "network", "cgroup"}


def test_what_costs_one_capability_more(built: image.Stage) -> None:
    assert doctor(built, with_all)["run statistics"]["ok"] is True


@pytest.mark.parametrize("what", NAMED)
def test_what_is_missing_is_named(built: image.Stage, what: str) -> None:
    change, check, words = NAMED[what]
    found = doctor(built, change)
    assert found[check]["ok"] is False, found[check]
    assert words in found[check]["fix"]
    assert "Kubernetes: " in found[check]["fix"]
    # Nothing else is blamed for it but what depends on it.
    blamed = {name for name in found if name != "ok" and "--cap-add" in found[name]["fix"]}
    assert blamed <= {check, "run statistics", "uprobes", "USDT", "other processes"}


def test_a_part_of_the_cgroup_hierarchy_is_named(built: image.Stage) -> None:
    mount = kernel.cgroup2()
    assert mount is not None
    group = Path(tempfile.mkdtemp(prefix="probetop-test-", dir=mount))
    try:
        settings = documented_by(built, "probetop", "doctor", "--json")
        settings.host.remove("cgroup")
        script = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
        command = ["sh", "-c", script, "sh", str(group), *container.command(settings)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        assert checks["cgroup v2"]["ok"] is False
        assert "--cgroupns host" in checks["cgroup v2"]["fix"]
    finally:
        eventually("the group is empty", lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


@pytest.mark.parametrize("name", ["CAP_BPF", "CAP_PERFMON", "CAP_SETUID", "CAP_SETGID"])
def test_without_it_nothing_starts(built: image.Stage, name: str) -> None:
    settings = documented_by(built, *STREAM, "--seconds", "1")
    settings.capabilities.remove(name)
    done = container.run(settings)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert re.search("CAP_BPF and CAP_PERFMON|give up privileges", line)


def test_what_reads_the_probes_is_nobody(built: image.Stage) -> None:
    """The broker keeps what the container has; the other process has nothing, and no bounds."""
    process = subprocess.Popen(
        container.command(documented_by(built, *STREAM)), cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        status = status_of(process.pid)
        process.terminate()
        process.communicate(timeout=DEADLINE)
    assert set(status["Uid"].split()) == {"65534"}
    sets = {status[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert sets == {""}
    assert process.returncode == 0


def test_containers_have_their_names(built: image.Stage, tmp_path: Path) -> None:
    """As the runtime's state says, which this container finds where it has the machine's files."""
    mount = kernel.cgroup2()
    assert mount is not None
    number = f"{os.getpid():064x}"
    state = tmp_path / "var/lib/docker/containers" / number / "config.v2.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"Name": "/shop-db", "Config": {"Labels": {}}}))
    (tmp_path / "run").mkdir()
    settings = documented_by(built, *STREAM, "--seconds", "4", "--probes", "execs")
    settings.volumes.append((str(tmp_path), "/host", True))
    group = mount / "docker" / number
    had = group.parent.exists()
    group.mkdir(parents=True)
    script = 'echo $$ > "$1/cgroup.procs" && /bin/true'

    def work() -> None:
        for _ in range(5):
            subprocess.run(["/bin/sh", "-c", script, "sh", str(group)], check=True)
            time.sleep(0.5)

    try:
        objects = stream(settings, work)
    finally:
        group.rmdir()
        if not had:
            group.parent.rmdir()
    events = [event for obj in objects for event in obj["probes"]["execs"]["events"]]
    ours = [event for event in events if event.get("cgroup") == f"/docker/{number}"]
    assert {event["container"] for event in ours} == {number[:12], "shop-db"}
    assert ours[-1]["container"] == "shop-db"
    assert {event["runtime"] for event in ours} == {"docker"}
