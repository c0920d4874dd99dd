# SPDX-License-Identifier: Apache-2.0
"""Measurements without a connection: begun, stopped, fetched, and bounded."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from probes.core.frame import Filters
from probes.core.sample import Estimate
from probes.host import content_file
from probes.latency.sample import LatencySample, Spent
from tests.unit.agent import Served, eventually
from tui.agent.errors import Refused
from tui.agent.http import schemas
from tui.agent.state import measurements


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as one:
        yield one


def begin(served: Served, seconds: float = 3600, **wish: Any) -> str:
    answer = served.ask("POST", "/v1/runs", {"seconds": seconds, **wish})
    assert answer.status == 201, answer.body
    identity: str = answer.json()["id"]
    assert answer.headers["Location"] == f"/v1/runs/{identity}"
    return identity


def run(served: Served, identity: str) -> dict[str, Any]:
    value: dict[str, Any] = served.get(f"/v1/runs/{identity}").json()
    assert value.keys() == set(schemas.Run.__struct_fields__)
    return value


def began(served: Served, identity: str) -> None:
    eventually("it counts", lambda: run(served, identity)["began"])


def over(served: Served, identity: str) -> dict[str, Any]:
    return (
        eventually(
            "it is over",
            lambda: value if (value := run(served, identity))["state"] != "running" else None,
        )
        or {}
    )


def test_a_run_has_what_happened_in_its_seconds(served: Served) -> None:
    value = over(served, begin(served, 0.1, probes=["syscalls", "execs"]))
    assert (value["state"], value["problems"]) == ("done", [])
    result = value["result"]
    assert set(result["probes"]) == {"syscalls", "execs"}
    # Two Frames were made for it, and of what is between them it tells.
    assert result["frames"] == 2
    assert 250_000 < result["probes"]["syscalls"]["rows"][0]["count"] < 350_000
    assert value["began"] < value["ended"]


def test_a_run_is_stopped_and_forgotten(served: Served) -> None:
    identity = begin(served, probes=["syscalls"])
    began(served, identity)
    served.source.push(3)
    stopped = served.ask("DELETE", f"/v1/runs/{identity}")
    assert (stopped.status, stopped.json()["state"]) == (200, "stopped")
    assert stopped.json()["result"]["frames"] >= 2
    assert run(served, identity) == stopped.json()
    assert [one["id"] for one in served.get("/v1/runs").json()["runs"]] == [identity]
    assert served.ask("DELETE", f"/v1/runs/{identity}").status == 204
    served.get(f"/v1/runs/{identity}").refused(404)
    served.ask("DELETE", f"/v1/runs/{identity}").refused(404)


def test_what_was_on_for_it_is_off_again(served: Served) -> None:
    served.ask("PUT", "/v1/probes/pmc", {"on": False})
    served.ask("PUT", "/v1/probes/execs", {"on": False})
    one, two = begin(served, probes=["pmc"]), begin(served, probes=["pmc", "syscalls"])
    assert served.source.on["pmc"]
    assert not served.source.on["execs"]
    served.ask("DELETE", f"/v1/runs/{one}")
    assert served.source.on["pmc"]
    served.ask("DELETE", f"/v1/runs/{two}")
    assert served.source.on == {"syscalls": True, "execs": False, "latency": True, "pmc": False}
    assert served.get("/v1/probes/pmc").json()["wanted"] is False


def test_a_run_goes_on_when_nobody_watches() -> None:
    with Served(linger=0.2) as served:
        identity = begin(served, probes=["syscalls"])
        eventually("the others are off", lambda: sum(served.source.on.values()) == 1)
        began(served, identity)
        assert served.source.on["syscalls"]
        served.ask("DELETE", f"/v1/runs/{identity}")
        eventually("nothing is on", lambda: not any(served.source.on.values()))


def test_targets_are_there_for_as_long_as_a_run_needs_them(served: Served) -> None:
    one = begin(served, targets=["irq", "runq"])
    two = begin(served, targets=[" irq "])
    began(served, one)
    began(served, two)
    assert set(served.source.traced) == {"runq", "irq"}
    value = served.ask("DELETE", f"/v1/runs/{one}").json()
    # Of the others, which somebody else wants, it tells nothing.
    specs = [row["spec"] for row in value["result"]["probes"]["latency"]["targets"]]
    assert sorted(specs) == ["irq", "runq"]
    assert set(served.source.traced) == {"runq", "irq"}
    served.ask("DELETE", f"/v1/runs/{two}")
    eventually("it is gone", lambda: set(served.source.traced) == {"runq"})


def test_a_run_has_rows_of_its_own_targets_alone() -> None:
    mine, other = "uprobe:libc:malloc", "uprobe:libc:free"
    sample = LatencySample(
        processes={(mine, 1): Spent(1, 1), (other, 1): Spent(1, 1)},
        texts={(mine, "a"): Spent(1, 1), (other, "a"): Spent(1, 1)},
        estimated_processes={(mine, 1): Estimate(1, 1), (other, 1): Estimate(1, 1)},
        estimated_texts={(mine, "a"): Estimate(1, 1), (other, "a"): Estimate(1, 1)},
    )
    narrowed = measurements._narrowed(sample, frozenset([mine]))
    tables = (
        narrowed.processes, narrowed.texts, narrowed.estimated_processes, narrowed.estimated_texts,
    )  # fmt: skip
    for table in tables:
        assert [spec for spec, _ in table] == [mine]


def test_a_target_that_a_client_adds_as_well_stays(served: Served) -> None:
    identity = begin(served, targets=["irq"])
    began(served, identity)
    assert served.ask("POST", "/v1/latency/targets", {"spec": "irq"}).status == 201
    served.ask("DELETE", f"/v1/runs/{identity}")
    assert "irq" in served.source.traced


def test_a_target_that_a_client_removes_is_no_failure_of_the_run(served: Served) -> None:
    identity = begin(served, targets=["irq"])
    began(served, identity)
    assert served.ask("DELETE", "/v1/latency/targets?spec=irq").status == 204
    assert served.ask("DELETE", f"/v1/runs/{identity}").json()["state"] == "stopped"


def test_what_fails_is_told_and_the_rest_has_a_result(served: Served) -> None:
    served.source.failing["execs"] = ("no ring buffer", "Linux 5.8")
    served.source.broken["uprobe:libc:nope"] = ("no function nope", "did you mean open")
    wish = {"probes": ["syscalls", "execs"], "targets": ["uprobe:libc:nope", "irq"]}
    value = over(served, begin(served, 0.1, **wish))
    assert value["state"] == "done"
    assert value["problems"] == [
        {"what": "uprobe:libc:nope", "why": "no function nope", "fix": "did you mean open"},
        {"what": "execs", "why": "no ring buffer", "fix": "Linux 5.8"},
    ]
    assert value["result"]["probes"]["syscalls"]["rows"]
    assert value["result"]["probes"]["execs"]["why"] == "no ring buffer"


def test_a_run_of_nothing_but_failures_has_failed(served: Served) -> None:
    served.source.failing["execs"] = ("no ring buffer", "Linux 5.8")
    value = over(served, begin(served, probes=["execs"]))
    assert (value["state"], value["result"]) == ("failed", None)
    served.source.broken["irq"] = ("no", "never")
    value = over(served, begin(served, targets=["irq"]))
    assert value["state"] == "failed"
    assert value["problems"][0]["what"] == "irq"
    assert not served.agent.control.demand.runs


def test_filters_are_lent_to_a_run(served: Served) -> None:
    served.ask("PUT", "/v1/filters", {"comm": "mine"})
    identity = begin(served, probes=["syscalls"], filters={"uid": 0})
    assert served.source.filters == Filters(uid=0)
    assert served.get("/v1/filters").json()["comm"] == "mine"
    served.ask("POST", "/v1/runs", {"seconds": 1, "filters": {"uid": 1}}).refused(422)
    served.ask("POST", "/v1/runs", {"seconds": 1}).refused(422)
    assert begin(served, probes=["syscalls"], filters={"uid": 0}) != identity
    served.ask("PUT", "/v1/filters", {"comm": "other"})
    assert served.source.filters == Filters(uid=0)
    for one in served.get("/v1/runs").json()["runs"]:
        served.ask("DELETE", f"/v1/runs/{one['id']}")
    assert served.source.filters == Filters(comm="other")


def test_a_filtered_process_that_ends_during_a_run_is_still_meant_after_it(
    served: Served,
) -> None:
    """Its pid may be another one's by then, and an error would leave the run without an end."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        served.ask("PUT", "/v1/filters", {"pid": process.pid})
        meant = served.source.filter_watch
        identity = begin(served, probes=["syscalls"], filters={"uid": 0})
        assert served.source.filters == Filters(uid=0)
    served.ask("DELETE", f"/v1/runs/{identity}")
    assert served.source.filter_watch is meant
    assert served.source.filters == Filters(pid=process.pid)
    assert meant.check()


def test_a_cgroup_that_is_none_is_refused_during_a_run_as_well(served: Served) -> None:
    begin(served, probes=["syscalls"], filters={"uid": 0})
    served.ask("PUT", "/v1/filters", {"cgroup": "/not/there"}).refused(422)
    assert served.get("/v1/filters").json()["cgroup"] is None


def test_there_are_only_so_many(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "MOST_KEPT", 6)
    going = [begin(served, probes=["syscalls"]) for _ in range(measurements.MOST_RUNNING)]
    answer = served.ask("POST", "/v1/runs", {"seconds": 1})
    assert "runs at a time" in answer.refused(429)
    assert served.ask("DELETE", f"/v1/runs/{going[0]}").status == 200
    for _ in range(4):
        served.ask("DELETE", f"/v1/runs/{begin(served, probes=['syscalls'])}")
    kept = [one["id"] for one in served.get("/v1/runs").json()["runs"]]
    assert len(kept) == 6
    # Those that go on are never forgotten.
    assert set(going[1:]) < set(kept)
    assert going[0] not in kept


def test_results_are_forgotten(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = begin(served, 0.05, probes=["syscalls"])
    over(served, identity)
    monkeypatch.setattr(measurements, "MOST_AGE", -1)
    served.get(f"/v1/runs/{identity}").refused(404)
    assert served.get("/v1/runs").json() == {"runs": []}


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"seconds": None},
        {"seconds": "5"},
        {"seconds": 0},
        {"seconds": 3601},
        {"seconds": True},
        {"seconds": 1, "probes": []},
        {"seconds": 1, "probes": ["sycalls"]},
        {"seconds": 1, "probes": "syscalls"},
        {"seconds": 1, "probes": [1]},
        {"seconds": 1, "targets": ["nothing"]},
        {"seconds": 1, "targets": ["runq"] * 100},
        {"seconds": 1, "targets": [None]},
        {"seconds": 1, "filters": []},
        {"seconds": 1, "filters": {"pid": "x"}},
        {"seconds": 1, "name": "x"},
    ],
)
def test_wrong_runs_begin_nothing(served: Served, wish: dict[str, Any]) -> None:
    before = list(served.source.commands)
    served.ask("POST", "/v1/runs", wish).refused(422)
    assert served.get("/v1/runs").json() == {"runs": []}
    assert served.source.commands == before


def test_snapshots_are_of_the_last_seconds(served: Served) -> None:
    value = served.get("/v1/snapshot.json?seconds=60").json()
    assert value["frames"] == 2
    assert value["probes"]["syscalls"]["rows"]
    for wrong in ("0", "61", "nan", "x", "", "1&seconds=2"):
        served.get(f"/v1/snapshot.json?seconds={wrong}").refused(422)


def test_a_page_is_made_by_somebody_else(served: Served) -> None:
    import threading

    from tui.agent.state.snapshot_worker import make

    def in_thread(name: str) -> dict[str, Any]:
        # It draws with a loop of its own.
        out: list[Any] = []
        thread = threading.Thread(target=lambda: out.append(make(served.page_files)))
        thread.start()
        thread.join()
        return {"ok": True, "result": out[0]}

    served.source.helped = in_thread
    first = served.get("/v1/snapshot.html")
    answer = served.get("/v1/snapshot.html")
    assert len(first.body) == len(answer.body), "what one page leaves is not part of the next"
    assert [os.fstat(fd).st_blocks for fd in served.page_files] == [0, 0]
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.body.startswith(b"<!doctype html>") or b"<html" in answer.body[:300]
    assert b"futex" in answer.body
    assert b"<svg" in answer.body
    served.source.helped = lambda name: {"ok": False, "why": "no memory", "fix": "add some"}
    assert served.get("/v1/snapshot.html").refused(503) == "no memory"


def test_what_pages_are_made_of_is_bounded(served: Served) -> None:
    """What lies in a file without a name belongs to no process that the kernel could end."""
    for fd in served.page_files:
        size = os.fstat(fd).st_size
        assert size <= 65 << 20
        with pytest.raises(PermissionError):
            os.truncate(fd, size + 1)
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", size)
        # However long it says that it is.
        os.pwrite(fd, b"\xff" * 8, 0)
        with pytest.raises(ValueError, match="more than its file"):
            content_file.read(fd)


def test_a_page_that_is_too_large_is_of_less_time(served: Served) -> None:
    snapshots, view = served.agent.snapshots, served.agent.views["all"]
    source, _ = served.page_files
    for at in range(32):
        snapshots._history.add(replace(served.source.frame(), mono=1e9 + at))
    everything = snapshots._write(60.0, source, view)
    size = len(content_file.read(source))
    small = content_file.create("small", size - 1)
    fewer = snapshots._write(60.0, small, view)
    assert len(content_file.read(small)) < size
    assert 2 <= fewer < everything
    tiny = content_file.create("tiny", 100)
    with pytest.raises(Refused, match="too much for a page"):
        snapshots._write(60.0, tiny, view)
    os.close(small)
    os.close(tiny)
