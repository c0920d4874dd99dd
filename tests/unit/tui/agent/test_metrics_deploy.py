# SPDX-License-Identifier: Apache-2.0
"""The rules and the dashboard that are shipped ask for series that there are."""

from __future__ import annotations

import json
import re
from typing import Any

from probes.core import histogram
from probes.core.frame import Frame, Host
from probes.core.readings import Reading
from probes.core.sample import Budget, Cost, Counts, Duty, Estimate, Estimates, Histogram
from probes.execs.sample import ExecSample
from probes.latency.sample import LatencySample, Target
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes
from probes.syscalls.sample import SyscallSample
from tests.paths import ROOT
from tests.unit.metrics_feed import values
from tui.agent.metrics.collector import Metrics

DEPLOY = ROOT / "deploy"
RULES = (DEPLOY / "prometheus/probetop.rules.yml").read_text()
DASHBOARD = json.loads((DEPLOY / "grafana/probetop.json").read_text())
# Names of Prometheus's own, and what a histogram is called where it is a native one.
OTHERS = {"up", "probetop_latency_seconds", "probetop_syscall_latency_seconds"}


def everything() -> Frame:
    """A Frame from which every series comes."""
    some = Histogram({histogram.index(5000): 3}, 3, 15000)
    cost = Cost(events=1, ns_per_event=1.0, cpu_percent=1.0, map_bytes=1)
    events = ("cycles", "instructions", "cache-misses")
    part = Estimates(8, 1, 1, 1)
    targets = [
        Target(spec="a", mechanism="m", state="on", histogram=some, floor=1.0),
        Target(spec="b", mechanism="m", state="on", histogram=some, unit=""),
        Target(spec="c", mechanism="m", state="on", histogram=some, counts_only=True),
    ]
    return Frame(
        time=1, mono=1, interval=1, host=Host(), budget=Budget(1.0, 1.0),
        samples={
            "syscalls": SyscallSample(
                state="on", cost=cost, calls={"read": Counts(3, 1)}, errnos={("read", "EIO"): 1},
                matrix={(1, "read"): Counts(3, 1)}, comms={1: "x"}, latency={"read": some},
                duty=Duty(5, 0.1, 1.0, 0.0, 4), estimated={"read": part},
                estimated_errnos={("read", "EIO"): Estimate(1, 1)},
                estimated_processes={1: part}, estimated_total=part,
            ),
            "execs": ExecSample(
                state="on", execs=1,
                failed_duty=Duty(4, 0.1, 4.0, 0.0, 3), estimated_failed=Estimate(1, 1),
            ),
            "latency": LatencySample(state="on", targets={t.spec: t for t in targets}),
            "pmc": PmcSample(
                state="on", hardware=True, events=events, tasks={1: TaskTimes(1, 1, 1, 1)},
                readings={(1, event): Reading(1, 1, 1) for event in events},
                cpus={0: CpuTimes(1, 1, 1, 1)},
                cpu_readings={(0, event): Reading(1, 1, 1) for event in events},
                duty=Duty(5, 0.1, 1.0, 0.0, 4),
                estimated={(1, name): Estimate(8, 1) for name in ("task_clock", *events)},
                estimated_machine=dict.fromkeys(
                    ("busy", "context_switches", "wait", "idle", "migrations"), Estimate(8, 1)
                ),
            ),
        },
    )  # fmt: skip


def exposed() -> dict[str, set[str]]:
    """Every name that is exposed, and the names of its labels."""
    metrics = Metrics(read=lambda pid: "/a")
    metrics.add(everything())
    found: dict[str, set[str]] = {}
    for name, labels in values(metrics):
        found.setdefault(name, set()).update(key for key, _ in labels)
    return found


def recorded() -> set[str]:
    return set(re.findall(r"^ *- record: (\S+)$", RULES, re.MULTILINE))


def asked(expression: str) -> set[str]:
    """The names of series in a query."""
    bare = re.sub(r"\{[^}]*\}", "", expression)
    bare = re.sub(r"\b(?:by|without|on)\s*\([^)]*\)", "", bare)
    return set(re.findall(r"\b(?:[a-z]+:)?(?:probetop|process)_[a-z0-9_]+(?::\w+)?", bare))


def panels(within: Any = None) -> list[dict[str, Any]]:
    """All panels, those in rows that are folded too."""
    found: list[dict[str, Any]] = []
    for panel in DASHBOARD["panels"] if within is None else within:
        found += [panel, *panels(panel.get("panels", []))]
    return found


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", [])]


def test_rules_ask_for_what_there_is() -> None:
    known = exposed().keys() | recorded() | OTHERS
    names = asked(
        re.sub(r"(?m)^ *(?:#|- (?:record|alert|name):|summary:|description:).*$", "", RULES)
    )
    assert len(names) > 25
    assert names <= known, names - known


def test_the_dashboard_asks_for_what_there_is() -> None:
    known = exposed().keys() | OTHERS
    names = {name for query in queries() for name in asked(query)}
    assert len(names) > 30
    assert names <= known, names - known


def test_labels_that_are_asked_for_exist() -> None:
    known = {name for names in exposed().values() for name in names} | {"job", "instance"}
    for text in (RULES, *queries()):
        for inner in re.findall(r"\{([^}{]*[=~][^}{]*)\}", text):
            assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inner)) <= known, inner
        for inner in re.findall(r"\b(?:by|without|on)\s*\(([^)]*)\)", text):
            wanted = set(re.findall(r"\w+", inner))
            assert wanted <= known | {"le"}, inner


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids)) > 30
    for panel in panels():
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"]
        assert panel["targets"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))
    used = set(re.findall(r"\$(\w+)", " ".join(queries())))
    assert used - {"__rate_interval"} <= variables.keys()


def test_panels_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not mine & cells, panel["title"]
        cells |= mine
