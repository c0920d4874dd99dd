# SPDX-License-Identifier: Apache-2.0
"""Debian's Prometheus scrapes a running agent; PromQL must say what the workload says it did."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.syscall_names import errno_name, name_of
from tests.kernel.harness import Work
from tests.kernel.prometheus import Agent, Prometheus
from tests.paths import ROOT
from tests.unit.metrics_feed import PROTOBUF, decoded
from tui.agent.metrics.histogram import SECONDS

pytestmark = pytest.mark.kernel

DEPLOY = ROOT / "deploy"
NUMBER = name_of(500, False, kernel.arch() or "")
UID = 54322
NATIVE = "--enable-feature=native-histograms"
PREFIX = "probetop_syscall_latency_seconds"
SLEEP = '{syscall="clock_nanosleep"}'


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """What all of these need."""
    for tool in ("prometheus", "promtool"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: install the package prometheus")


@pytest.fixture(scope="module")
def agent(tools: None) -> Iterator[Agent]:
    # Everything is timed and has its series, whatever others do here meanwhile.
    roomy = ("--top", "500", "--cgroups", "500")
    with Agent("--latency", "--budget", "0", *roomy) as running:
        yield running


@pytest.fixture(scope="module")
def server(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("prometheus"), agent) as running:
        yield running


@pytest.fixture(scope="module")
def native(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("native"), agent, NATIVE) as running:
        yield running


@pytest.fixture
def cgroup() -> Iterator[Path]:
    root = kernel.cgroup2()
    if root is None:
        pytest.skip("no cgroup2 hierarchy is mounted")
    path = root / f"probetop-metrics-{os.getpid()}"
    path.mkdir()
    yield path
    path.rmdir()


def promtool(*words: str | Path, text: bytes | None = None) -> None:
    done = subprocess.run(["promtool", *words], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), (done.stdout, done.stderr)


def test_calls_and_errors_are_counted_exactly(server: Prometheus, calls: Path) -> None:
    expressions = (
        f'probetop_syscalls_total{{syscall="{NUMBER}"}}',
        f'probetop_syscall_errors_total{{syscall="{NUMBER}",errno="ENOSYS"}}',
        'sum(probetop_process_syscalls_total{comm="exactly"})',
    )
    with Work(calls, "number", "7000", "exactly") as work:
        server.scraped()
        before = [server.value(expression) for expression in expressions]
        work.work()
        server.scraped()
        after = [server.value(expression) for expression in expressions]
    gained = [new - old for new, old in zip(after, before, strict=True)]
    assert gained[:2] == [7000, 7000]
    # Its own few calls before and after are there as well.
    assert 7000 <= gained[2] < 7100


def test_errors_by_errno(server: Prometheus, calls: Path) -> None:
    """Each errno E in 1..150 and 500..600 comes E times."""
    expression = 'probetop_syscall_errors_total{syscall="getpgid"}'
    with Work(calls, "errnos") as work:
        server.scraped()
        before = server.by("errno", expression)
        work.work()
        server.scraped()
    after = server.by("errno", expression)
    gained = {name: n - before.get(name, 0) for name, n in after.items()}
    wanted: dict[str, int] = {}
    for number in (*range(1, 151), *range(500, 601)):
        name = errno_name(number)
        wanted[name] = wanted.get(name, 0) + number
    # What is no errno of the kernel may be among the others.
    for number in range(1, 132):
        name = errno_name(number)
        assert gained.get(name) == wanted[name], name
    assert sum(gained.values()) == sum(wanted.values())


def test_a_control_group_s_calls(server: Prometheus, calls: Path, cgroup: Path) -> None:
    def enter() -> None:
        (cgroup / "cgroup.procs").write_text("0")

    with Work(calls, "number", "3000", "inside", preexec_fn=enter) as work:
        work.work()
        server.scraped()
    found = server.query('probetop_process_syscalls_total{comm="inside"}')
    assert [labels["cgroup"] for labels, _ in found] == [f"/{cgroup.name}"]
    assert 3000 <= found[0][1] < 3100


def test_the_series_of_processes_are_the_whole(server: Prometheus) -> None:
    """At the moment of one scrape, whatever else runs here; those that ended are let go."""
    server.scraped()
    whole = server.value("sum(probetop_syscalls_total)")
    assert whole > 10_000
    difference = server.query("sum(probetop_syscalls_total) - sum(probetop_process_syscalls_total)")
    assert [value for _, value in difference] == [0]


@pytest.fixture
def unfiltered(agent: Agent) -> Iterator[Agent]:
    """The agent, without filters again afterwards."""
    yield agent
    agent.put("/v1/filters")


def slept(
    agent: Agent, calls: Path, server: Prometheus, *expressions: str
) -> tuple[list[int], list[float], int]:
    """300 sleeps of 1 to 5 ms, and of nobody else.

    What the workload says of them, by how much each expression rose, and the milliseconds for
    which nobody else was counted, from some scrapes before the first sleep until now.
    """
    with Work(calls, "sleeps", "300", "sleeper") as work:
        agent.put("/v1/filters", pid=work.pid)
        server.scraped()
        started = time.monotonic()
        server.scraped()
        before = [server.value(expression) for expression in expressions]
        numbers = work.work()
        server.scraped()
    after = [server.value(expression) for expression in expressions]
    gained = [new - old for new, old in zip(after, before, strict=True)]
    return numbers, gained, math.floor(1000 * (time.monotonic() - started))


def test_quantiles_are_in_the_right_bucket(
    unfiltered: Agent, server: Prometheus, calls: Path
) -> None:
    unfiltered.on("syscalls", latency=True)
    bounds = [*SECONDS, math.inf]
    names = [f"{bound:g}|{bound:g}.0" if bound < math.inf else "[+]Inf" for bound in bounds]
    numbers, (count, sum_, *buckets), span = slept(
        unfiltered, calls, server, f"{PREFIX}_count{SLEEP}", f"{PREFIX}_sum{SLEEP}",
        *[f'{PREFIX}_bucket{{syscall="clock_nanosleep",le=~"{le}"}}' for le in names],
    )  # fmt: skip
    p50, _, longest, total = numbers
    assert count == 300
    # What the workload measures has its own two clock readings in it.
    assert total / 1e9 * 0.9 <= sum_ <= total / 1e9
    cumulative = dict(zip(bounds, buckets, strict=True))
    assert cumulative[0.001] == 0
    assert cumulative[math.inf] == 300
    assert all(n == 300 for bound, n in cumulative.items() if bound > 2 * longest / 1e9)
    median = next(bound for bound, n in cumulative.items() if n >= 150)
    assert median == SECONDS[bisect_left(SECONDS, p50 / 1e9)]
    found = server.value(f"histogram_quantile(0.5, increase({PREFIX}_bucket{SLEEP}[{span}ms]))")
    assert SECONDS[bisect_left(SECONDS, p50 / 1e9) - 1] < found <= median


def test_native_histograms_are_within_a_bucket_of_the_truth(
    unfiltered: Agent, native: Prometheus, calls: Path
) -> None:
    unfiltered.on("syscalls", latency=True)
    assert native.query(f"{PREFIX}_bucket") == []
    numbers, (count, sum_), span = slept(
        unfiltered, calls, native, f"histogram_count({PREFIX}{SLEEP})",
        f"histogram_sum({PREFIX}{SLEEP})",
    )  # fmt: skip
    p50, _, longest, total = numbers
    assert count == 300
    assert total / 1e9 * 0.9 <= sum_ <= total / 1e9
    found = native.value(f"histogram_quantile(0.5, increase({PREFIX}{SLEEP}[{span}ms]))")
    assert found == pytest.approx(p50 / 1e9, rel=2 ** (1 / 8) * 33 / 32 - 1)
    found = native.value(f"histogram_quantile(1, increase({PREFIX}{SLEEP}[{span}ms]))")
    assert found >= longest / 1e9 * 0.97


def test_programs_by_result_and_end(unfiltered: Agent, server: Prometheus) -> None:
    script = (
        "for i in 1 2 3 4 5 6 7 8 9 10; do /bin/true; done; for i in 1 2 3; do /bin/false; done;"
        "for i in 1 2 3 4 5; do /nonexistent/x; done;"
        "for i in 1 2; do /bin/sh -c 'kill -9 $$'; done; exit 0"
    )
    unfiltered.put("/v1/filters", uid=UID)
    server.scraped()
    execs = server.by("result", "probetop_execs_total")
    exits = server.by("kind", "probetop_exits_total")
    subprocess.run(["/bin/sh", "-c", script], user=UID, capture_output=True, check=True, cwd="/")
    server.scraped()
    gained = {
        result: n - execs.get(result, 0)
        for result, n in server.by("result", "probetop_execs_total").items()
    }
    assert {result: n for result, n in gained.items() if n} == {"ok": 1 + 10 + 3 + 2, "ENOENT": 5}
    gained = {k: n - exits.get(k, 0) for k, n in server.by("kind", "probetop_exits_total").items()}
    assert gained == {"ok": 10 + 1, "nonzero": 3, "signal": 2, "unknown": 5}


def test_nothing_falls_when_probes_go_and_come_back(
    unfiltered: Agent, server: Prometheus, calls: Path
) -> None:
    """Off and on, with and without latency, filtered and not, with another generation."""
    expression = f'probetop_syscalls_total{{syscall="{NUMBER}"}}'
    with Work(calls, "number", "1000") as one, Work(calls, "number", "2000") as two:
        server.scraped()
        before = server.value(expression)
        one.work()
        server.scraped()
        assert server.value(expression) == before + 1000
        for probe in ("syscalls", "execs", "latency", "pmc"):
            unfiltered.on(probe, False)
        server.scraped()
        assert server.by("probe", "probetop_probe_up") == {
            "syscalls": 0, "execs": 0, "latency": 0, "pmc": 0,
        }  # fmt: skip
        assert server.value(expression) == before + 1000
        for probe in ("syscalls", "execs", "latency", "pmc"):
            unfiltered.on(probe)
        unfiltered.on("syscalls", latency=False)
        unfiltered.put("/v1/filters", pid=two.pid)
        server.scraped()
        two.work()
        server.scraped()
        unfiltered.put("/v1/filters")
        unfiltered.on("syscalls", latency=True)
    server.scraped()
    assert server.value(expression) == before + 3000
    names = server.api("label/__name__/values")
    counters = [
        name
        for name in names
        if name.startswith("probetop_") and name.endswith(("_total", "_bucket", "_count", "_sum"))
    ]
    assert len(counters) > 20
    fallen = {name: server.query(f"resets({name}[1h]) > 0") for name in counters}
    assert not {name: found for name, found in fallen.items() if found}


def test_rules_run_on_what_there_is(server: Prometheus, native: Prometheus) -> None:
    for one in (server, native):
        one.scraped()
        rules = [rule for group in one.api("rules")["groups"] for rule in group["rules"]]
        assert len(rules) > 20
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        assert [rule for rule in rules if rule.get("lastError")] == []
    # Percentiles come out of either kind of histogram.
    for one in (server, native):
        found = one.query('target:probetop_latency_seconds:p99_5m{target="runq"}')
        assert len(found) == 1
        assert 0 < found[0][1] < 10
    firing = [alert["labels"]["alertname"] for alert in server.api("alerts")["alerts"]]
    assert "ProbetopDown" not in firing


def test_promtool_finds_nothing_to_complain_of(agent: Agent) -> None:
    promtool("check", "metrics", text=agent.metrics())
    rules = DEPLOY / "prometheus/probetop.rules.yml"
    promtool("check", "rules", rules)
    promtool("test", "rules", DEPLOY / "prometheus/probetop.rules.test.yml")
    promtool("check", "config", DEPLOY / "prometheus/prometheus.yml")


def test_variants_of_the_configuration_are_right_as_well(tmp_path: Path) -> None:
    text = (DEPLOY / "prometheus/prometheus.yml").read_text()
    variants, changed = re.subn(r"^( *)#(?=[^ \n]|  )", r"\1", text, flags=re.MULTILINE)
    assert changed >= 16
    for name in ("probetop.token", "probetop-ca.pem"):
        (tmp_path / name).write_text("x\n")
        variants = variants.replace(f"/etc/prometheus/{name}", str(tmp_path / name))
    # Debian builds it without Kubernetes.
    variants = re.sub(r"kubernetes_sd_configs:\n +- role: pod", "static_configs: []", variants)
    shutil.copy(DEPLOY / "prometheus/probetop.rules.yml", tmp_path)
    (tmp_path / "prometheus.yml").write_text(variants)
    done = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> list[str]:
    """Every query of the dashboard, with something in the place of its variables."""
    text = (DEPLOY / "grafana/probetop.json").read_text()
    found: list[str] = []

    def take(pairs: dict[str, object]) -> dict[str, object]:
        if isinstance(pairs.get("expr"), str):
            found.append(str(pairs["expr"]))
        return pairs

    json.loads(text, object_hook=take)
    filled = [re.sub(r"\$(job|instance|target)\b", ".*", one) for one in found]
    return [one.replace("$__rate_interval", "1m") for one in filled]


def test_every_query_of_the_dashboard_has_an_answer(server: Prometheus, native: Prometheus) -> None:
    asked = expressions()
    assert len(asked) > 35
    for expression in asked:
        assert "$" not in expression
        for one in (server, native):
            for _, value in one.query(expression):
                assert not math.isinf(value), expression


def test_a_scrape_has_native_histograms_of_the_kernel(agent: Agent) -> None:
    _, metrics = decoded(agent.metrics(PROTOBUF))["probetop_latency_seconds"]
    runq = next(value for labels, value in metrics if labels["target"] == "runq")
    assert runq["count"] == sum(runq["native"].values()) + runq["zero"] > 0
    assert runq["schema"] == 3


def test_the_agent_knows_its_own_cost(server: Prometheus, calls: Callable[[str], Path]) -> None:
    server.scraped()
    up = server.by("probe", "probetop_probe_up")
    assert set(up.values()) == {1}
    assert server.value("process_resident_memory_bytes") > 1e6
    memory = server.by("probe", "probetop_probe_memory_bytes")
    assert memory.keys() == up.keys()
    assert server.value("probetop_process_series") > 1
