# SPDX-License-Identifier: Apache-2.0
"""The agent over HTTP, on the real kernel: what it counts, and what is left of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from probes.core.frame import Frame
from probes.recording.framing import Decoder
from tests.kernel.harness import (
    Work,
    eventually,
    held_programs,
    is_running,
    left_in_kernel,
    program_ids,
    status_of,
)
from tests.kernel.serving import Agent, events

pytestmark = [pytest.mark.kernel, pytest.mark.concurrent]
ON = ("--budget", "0", "-i", "0.2")
NOBODY = "65534"


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with Agent(*ON, "--probes", "syscalls,execs,latency", "-f", "runq") as one:
        one.all_are("on", "syscalls", "execs", "latency")
        yield one


def gone(agent: Agent, children: list[int], before: set[int]) -> None:
    """Nothing is left of an agent that has ended: no process, no program."""
    eventually("its processes are gone", lambda: not any(map(is_running, children)))
    eventually("its programs are gone", lambda: not left_in_kernel(before, children))


def some_seconds(agent: Agent) -> Any:
    """A snapshot of more than a moment."""
    with agent.open("GET", "/v1/frames") as response:
        stream = events(response)
        for _ in range(3):
            next(stream)
    return agent.get("/v1/snapshot.json")


def row(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """The row with these values."""
    (found,) = [one for one in rows if wanted.items() <= one.items()]
    return found


# What it is.


def test_who_answers_has_no_privileges(agent: Agent) -> None:
    status = status_of(agent.pid)
    assert set(status["Uid"].split()) == {NOBODY}
    assert set(status["Gid"].split()) == {NOBODY}
    assert status["Groups"].split() in ([], [NOBODY])
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"
    assert "as nobody; anybody on this machine may read" in agent.said[0]
    assert "root controls it" in agent.said[1]
    (broker, *_) = agent.children()
    assert status_of(broker)["Uid"].split()[0] == "0"
    # The broker cannot be reached from outside: it has no part of the address.
    address = listening(agent.pid)
    assert address
    assert not address & {os.readlink(f"/proc/{broker}/fd/{fd}") for fd in fds(broker)}


def fds(pid: int) -> list[str]:
    return os.listdir(f"/proc/{pid}/fd")


def listening(pid: int) -> set[str]:
    """The sockets of a process that listen, as /proc names them."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{words[9]}]" for words in lines if words[3] == "0A"}
    return sockets & {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in fds(pid)}


def test_it_is_small(steady_calls: int) -> None:
    """All of its processes together, also after a page was drawn, of a machine that does little."""
    traced = ("--probes", "syscalls,execs,latency", "-f", "runq", "-p", str(steady_calls))
    with Agent(*ON, *traced) as agent:
        agent.all_are("on", "syscalls", "execs", "latency")
        some_seconds(agent)
        assert b"<html" in agent.get("/v1/snapshot.html?seconds=1")
        is_small(agent)


def is_small(agent: Agent) -> None:
    """Waits until what drew the page has ended, and judges what is left."""

    def kilobytes() -> int:
        found = 0
        for pid in (agent.pid, *agent.children()):
            with suppress(OSError):  # one that drew the page, and has ended
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                found += sum(map(int, re.findall(r"^Pss:\s+(\d+)", text, re.M)))
        return found

    eventually(
        f"it is small; its processes are {agent.children()}", lambda: 0 < kilobytes() < 75_000
    )
    maps = Path(f"/proc/{agent.pid}/maps").read_text()
    assert "libclang" not in maps
    assert "libbcc" not in maps


def test_the_doctor_has_privileges(agent: Agent) -> None:
    report = agent.get("/v1/doctor")
    assert report["ok"] is True
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["privileges"]["detail"].startswith("uid 0 with")
    assert checks["compiler"]["ok"] is True
    assert report["machine"]["uid"] == 0


# What it counts.


def test_off_is_truly_off(agent: Agent) -> None:
    held = held_programs(agent.pid)
    assert agent.ask("PUT", "/v1/probes/syscalls", {"on": False})["state"] == "off"
    # The broker detaches when the answer is on its way already.
    eventually("the broker holds fewer", lambda: held_programs(agent.pid) < held)
    off = held_programs(agent.pid)
    eventually("they are gone from the kernel", lambda: not (held - off) & program_ids())
    assert agent.ask("PUT", "/v1/probes/syscalls", {"on": True})["state"] == "on"
    eventually("as many are held", lambda: len(held_programs(agent.pid)) == len(held))


def test_a_run_counts_a_known_workload_exactly(agent: Agent, calls: Path) -> None:
    with Work(calls, "getppid", "200000", "million") as work:
        wish = {"seconds": 60, "probes": ["syscalls"], "filters": {"pid": work.pid}}
        run = agent.ask("POST", "/v1/runs", wish, status=201)
        path = f"/v1/runs/{run['id']}"
        eventually("it counts", lambda: agent.get(path)["began"])
        work.work()
        done = agent.ask("DELETE", path)
    assert (done["state"], done["problems"]) == ("stopped", [])
    found = done["result"]["probes"]["syscalls"]
    assert row(found["rows"], syscall="getppid")["count"] == 200_000
    assert done["result"]["filters"] == {"pid": work.pid}
    assert agent.get(path)["result"] == done["result"]
    assert agent.get("/v1/filters")["pid"] is None


def test_a_target_is_added_counts_and_is_removed(
    agent: Agent, program: Callable[[str], Path]
) -> None:
    functions = program("functions")
    spec = f"uprobe:{functions}:empty"
    before = held_programs(agent.pid)
    added = agent.ask("POST", "/v1/latency/targets", {"spec": spec}, status=201)
    assert (added["state"], added["mechanism"]) == ("on", "uprobe")
    assert held_programs(agent.pid) > before
    with agent.open("GET", "/v1/frames") as response:
        stream = events(response)
        next(stream)
        with Work(functions, "empty", "5000") as work:
            work.work()
        total, objects = 0, 0
        while total < 5000 and objects < 100:
            targets = next(stream)["probes"]["latency"]["targets"]
            total += row(targets, spec=spec)["count"]
            objects += 1
        assert total == 5000
    agent.ask("DELETE", f"/v1/latency/targets?spec={spec}", status=204)
    eventually("no others are held", lambda: held_programs(agent.pid) == before)


def test_what_cannot_be_traced_says_why(agent: Agent) -> None:
    before = held_programs(agent.pid)
    wish = {"spec": "uprobe:libc:no_such_function"}
    answer = agent.ask("POST", "/v1/latency/targets", wish, status=422)
    assert "has no function 'no_such_function'" in answer["why"]
    specs = [target["spec"] for target in agent.get("/v1/latency/targets")["targets"]]
    assert specs == ["runq"]
    eventually("no others are held", lambda: held_programs(agent.pid) == before)


def test_a_runs_target_is_gone_with_it(agent: Agent, program: Callable[[str], Path]) -> None:
    functions = program("functions")
    specs = [f"uprobe:{functions}:empty", "uprobe:libc:no_such_function"]
    before = held_programs(agent.pid)
    run = agent.ask("POST", "/v1/runs", {"seconds": 60, "targets": specs}, status=201)
    path = f"/v1/runs/{run['id']}"
    eventually("it counts", lambda: agent.get(path)["began"])
    with Work(functions, "empty", "3000") as work:
        work.work()
    done = agent.ask("DELETE", path)
    (problem,) = done["problems"]
    assert problem["what"] == specs[1]
    targets = done["result"]["probes"]["latency"]["targets"]
    assert row(targets, spec=specs[0])["count"] == 3000
    assert {target["spec"] for target in targets} == set(specs[:1])
    eventually("no others are held", lambda: held_programs(agent.pid) == before)


def test_records_are_frames(agent: Agent) -> None:
    headers = {"Accept": "application/vnd.probetop.frames"}
    with agent.open("GET", "/v1/frames", headers=headers) as response:
        decoder = Decoder()
        frames: list[Frame] = []
        while len(frames) < 3:
            frames += [one for one in decoder.feed(response.read1(65536)) if isinstance(one, Frame)]
    assert {sample.state for sample in frames[0].samples.values()} == {"on", "off"}
    assert frames[0].mono < frames[1].mono < frames[2].mono


def test_search_and_snapshot(agent: Agent, steady_calls: int) -> None:
    found = agent.get("/v1/search?q=malloc")["found"]
    assert any("malloc" in one["spec"] for one in found)
    value = some_seconds(agent)["probes"]["syscalls"]
    assert "getppid" in {row["syscall"] for row in value["rows"]}
    assert steady_calls in {row["pid"] for row in value["processes"]}


def test_nobody_watches(calls: Path) -> None:
    """What is attached goes when nobody watches, and comes back for who does."""
    before = program_ids()
    with Agent(*ON, "--probes", "syscalls", "--linger", "1") as agent:
        agent.all_are("on", "syscalls")
        agent.all_are("off", "syscalls")
        eventually("nothing is held", lambda: not held_programs(agent.pid))
        family = [agent.pid, *agent.children()]
        eventually("and gone from the kernel", lambda: not left_in_kernel(before, family))
        assert agent.get("/v1/probes")["watched"] is False
        assert agent.get("/v1/probes/syscalls")["wanted"] is True
        with agent.open("GET", "/v1/frames") as response:
            stream = events(response)
            while next(stream)["probes"]["syscalls"]["state"] != "on":
                pass
            with Work(calls, "getppid", "10000", "million") as work:
                work.work()
            total = 0
            for _ in range(20):
                rows = next(stream)["probes"]["syscalls"]["rows"]
                total += sum(one["count"] for one in rows if one["syscall"] == "getppid")
        assert total >= 10_000


def test_arguments_stay_hidden() -> None:
    secret = "a-secret-of-the-command-line"
    with Agent(*ON, "--probes", "execs", "--no-args") as agent:
        agent.all_are("on", "execs")
        with agent.open("GET", "/v1/frames") as response:
            stream = events(response)
            next(stream)
            child = subprocess.Popen(["/bin/true", secret])
            assert child.wait() == 0
            seen: list[Any] = []
            while not any(event.get("path") == "/bin/true" for event in seen):
                events_now = next(stream)["probes"]["execs"]["events"]
                seen += [event for event in events_now if event["pid"] == child.pid]
        event = row([one for one in seen if one["type"] == "exec"], ret=0)
        assert event["comm"] == "true"
        assert event["args"] is None
        assert event["args_hidden"] is True
        assert event["path"] == "/bin/true"
        value = agent.get("/v1/snapshot.json")
        assert any(one["comm"] == "true" for one in value["probes"]["execs"]["rows"])
        page = agent.get("/v1/snapshot.html")
        assert secret not in json.dumps([seen, value])
        assert secret.encode() not in page
        wish = {"options": {"args": True}}
        assert "hidden" in agent.ask("PUT", "/v1/probes/execs", wish, status=422)["why"]


# How it ends.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_it_cleanly(number: int) -> None:
    before = program_ids()
    with (
        Agent("--probes", "syscalls,execs,latency") as agent,
        agent.open("GET", "/v1/frames") as response,
    ):
        next(events(response))
        children = agent.children()
        agent.ask("POST", "/v1/runs", {"seconds": 60}, status=201)
        assert agent.end(number) == 0
        # The stream came to its end and was not cut.
        response.read()
        assert len(agent.said) == 2, agent.said
        gone(agent, children, before)


def test_a_kill_leaves_nothing() -> None:
    before = program_ids()
    with Agent("--probes", "syscalls,execs,latency") as agent:
        agent.all_are("on", "syscalls", "execs", "latency")
        children = agent.children()
        assert held_programs(agent.pid)
        assert agent.end(signal.SIGKILL) == -signal.SIGKILL
        gone(agent, children, before)


def test_without_its_broker_it_ends_and_says_so() -> None:
    before = program_ids()
    with Agent("--probes", "syscalls") as agent:
        (broker, *_) = agent.children()
        os.kill(broker, signal.SIGKILL)
        assert agent.process.wait(20) == 1
        eventually("it says so", lambda: "helper has ended" in agent.said[-1])
        gone(agent, [broker], before)


def test_targets_are_replaced_while_others_run(agent: Agent) -> None:
    """Those that stay go on, those that go are detached, and nothing ends."""
    path = "/v1/probes/latency"

    def replace(*specs: str) -> dict[str, str]:
        agent.ask("PUT", path, {"options": {"targets": specs}})
        targets = agent.get("/v1/latency/targets")["targets"]
        return {target["spec"]: target["state"] for target in targets}

    agent.ask("PUT", path, {"on": True})
    assert replace("runq", "irq") == {"runq": "on", "irq": "on"}
    both = held_programs(agent.pid)
    assert replace("irq", "softirq") == {"irq": "on", "softirq": "on"}
    with agent.open("GET", "/v1/frames") as response:
        stream = events(response)
        for _ in range(4):
            targets = next(stream)["probes"]["latency"]["targets"]
        assert {target["spec"] for target in targets} == {"irq", "softirq"}
    assert replace("runq", "irq") == {"runq": "on", "irq": "on"}
    eventually("as many are held", lambda: len(held_programs(agent.pid)) == len(both))
    agent.ask("PUT", path, {"options": {"targets": 5}}, status=422)
    assert replace() == {}
    assert replace("runq") == {"runq": "on"}
    assert agent.get("/healthz") == {"ok": True}
