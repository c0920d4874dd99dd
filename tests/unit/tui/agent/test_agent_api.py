# SPDX-License-Identifier: Apache-2.0
"""Requests that change or tell what is on, and whatever else is sent to the agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from probes.core.errors import ProbeError
from probes.core.frame import Filters
from tests.paths import ROOT
from tests.unit.agent import Served, eventually
from tui.agent.http import openapi, schemas
from tui.agent.http.operations import OPERATIONS, Operation
from tui.settings.decoding import strict_json


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as one:
        yield one


# Probes.


def test_probes_as_they_stand(served: Served) -> None:
    value = served.get("/v1/probes").json()
    assert value.keys() == {"interval", "budget", "watched", "probes"}
    assert value["watched"] is True
    names = [probe["name"] for probe in value["probes"]]
    assert names == ["syscalls", "execs", "latency", "pmc"]
    assert set(value["probes"][0]) == set(schemas.Probe.__struct_fields__)
    assert value["probes"][0]["options"] == {"latency": False, "sample_every": 1}
    assert value["probes"][2]["options"] == {"targets": ["runq"]}
    assert value["probes"][0] == served.get("/v1/probes/syscalls").json()


def test_a_probe_is_switched_and_told_of_when_it_is(served: Served) -> None:
    off = served.ask("PUT", "/v1/probes/execs", {"on": False}).json()
    assert (off["state"], off["wanted"]) == ("off", False)
    assert served.source.commands[-1] == ("toggle", "execs", False)
    on = served.ask("PUT", "/v1/probes/execs", {"on": True}).json()
    assert (on["state"], on["wanted"]) == ("on", True)
    served.source.failing["execs"] = ("no ring buffer", "Linux 5.8")
    failed = served.ask("PUT", "/v1/probes/execs", {"on": True}).json()
    assert (failed["state"], failed["why"], failed["fix"]) == (
        "failed",
        "no ring buffer",
        "Linux 5.8",
    )
    # What failed is tried again, though it was wished for before.
    assert served.source.commands[-1] == ("toggle", "execs", True)


def test_options(served: Served) -> None:
    wish = {"options": {"latency": True, "sample_every": 4}}
    value = served.ask("PUT", "/v1/probes/syscalls", wish).json()
    assert value["options"] == {"latency": True, "sample_every": 4}
    assert ("set_option", "syscalls", "sample_every", 4) in served.source.commands
    served.source.errors["set_option"] = ProbeError("no such value", "another")
    assert served.ask("PUT", "/v1/probes/syscalls", wish).refused(422) == "no such value"


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("sycalls", {"on": True}, 404),
        ("x" * 2000, {"on": True}, 404),
        ("syscalls", {"on": 1}, 422),
        ("syscalls", {"on": "true"}, 422),
        ("syscalls", {"no": True}, 422),
        ("syscalls", {"options": []}, 422),
        ("syscalls", {"options": {"latencies": True}}, 422),
        ("latency", {"options": {"add": "runq"}}, 422),
        ("latency", {"options": {"follow": "runq"}}, 422),
        ("pmc", {"options": {"events": [1]}}, 422),
        ("syscalls", [], 422),
        ("syscalls", None, 400),
        ("syscalls", b"", 400),
        ("syscalls", b"{", 400),
        ("syscalls", b"\xff\xfe", 400),
        ("syscalls", b'{"on": NaN}', 400),
        ("syscalls", b"[" * 60_000, 400),
        ("syscalls", b'{"on": ' + b"1" * 5000 + b"}", 400),
        ("syscalls", b'{"on": "\\ud800"}', 400),
    ],
)
def test_wrong_wishes_change_nothing(served: Served, name: str, body: Any, status: int) -> None:
    before = list(served.source.commands)
    data = b"null" if body is None else body
    expected = 422 if body is None else status
    answer = served.ask("PUT", f"/v1/probes/{name}", data, Content_Type="application/json")
    answer.refused(expected)
    assert served.source.commands == before


def test_a_near_name_is_named(served: Served) -> None:
    assert served.get("/v1/probes/sycalls").json()["fix"] == "did you mean syscalls?"


# Targets.


def test_targets_are_added_and_removed(served: Served) -> None:
    added = served.ask("POST", "/v1/latency/targets", {"spec": " uprobe:libc:malloc "})
    assert (added.status, added.json()["spec"]) == (201, "uprobe:libc:malloc")
    assert added.json()["state"] == "on"
    both = [target["spec"] for target in served.get("/v1/latency/targets").json()["targets"]]
    assert both == ["runq", "uprobe:libc:malloc"]
    again = served.ask("POST", "/v1/latency/targets", {"spec": "uprobe:libc:malloc"})
    assert "already" in again.refused(422)
    gone = served.ask("DELETE", "/v1/latency/targets?spec=uprobe:libc:malloc")
    assert (gone.status, gone.body) == (204, b"")
    served.ask("DELETE", "/v1/latency/targets?spec=uprobe:libc:malloc").refused(404)
    served.ask("DELETE", "/v1/latency/targets?spec=%00%ff").refused(404)
    served.ask("DELETE", "/v1/latency/targets").refused(422)


def test_a_target_is_attached_anew_where_it_is_there(served: Served) -> None:
    wish = {"spec": " runq ", "follow": True}
    answer = served.ask("POST", "/v1/latency/targets", wish)
    assert (answer.status, answer.json()["spec"]) == (201, "runq")
    assert served.source.commands[-1] == ("set_option", "latency", "follow", "runq")
    served.ask("POST", "/v1/latency/targets", {"spec": "uprobe:libc:open", "follow": True})
    assert served.source.commands[-1] == ("set_option", "latency", "add", "uprobe:libc:open")
    served.ask("POST", "/v1/latency/targets", {"spec": "runq", "follow": "yes"}).refused(422)
    # One that cannot be attached any more says so, and stays among the targets.
    served.source.traced["runq"] = replace(
        served.source.traced["runq"], state="failed", why="no such file", fix=""
    )
    assert served.ask("POST", "/v1/latency/targets", wish).refused(422) == "no such file"
    assert "runq" in served.source.traced


def test_what_cannot_be_traced_is_taken_out_again(served: Served) -> None:
    served.source.broken["uprobe:libc:nope"] = ("libc has no function nope", "did you mean open")
    answer = served.ask("POST", "/v1/latency/targets", {"spec": "uprobe:libc:nope"})
    assert answer.refused(422) == "libc has no function nope"
    assert answer.json()["fix"] == "did you mean open"
    assert "uprobe:libc:nope" not in served.source.traced
    served.ask("POST", "/v1/latency/targets", {"spec": "nothing"}).refused(422)
    served.ask("POST", "/v1/latency/targets", {"spec": ["runq"]}).refused(422)
    served.ask("POST", "/v1/latency/targets", {"spec": "x" * 600}).refused(422)
    served.ask("POST", "/v1/latency/targets", {}).refused(422)


def test_a_target_switches_the_probe_on(served: Served) -> None:
    served.ask("PUT", "/v1/probes/latency", {"on": False})
    assert served.ask("POST", "/v1/latency/targets", {"spec": "irq"}).status == 201
    assert served.source.on["latency"]


def test_there_are_only_so_many_targets(served: Served) -> None:
    runq = served.source.traced["runq"]
    served.source.traced.update({f"func:f{number}": runq for number in range(63)})
    served.ask("POST", "/v1/latency/targets", {"spec": "irq"}).refused(429)


# Filters, the interval, the search.


def test_filters(served: Served) -> None:
    pid = os.getpid()
    value = served.ask("PUT", "/v1/filters", {"pid": pid, "comm": "a", "user": "root"}).json()
    assert value == {"pid": pid, "comm": "a", "uid": 0, "cgroup": None}
    assert served.source.filters == Filters(pid, "a", 0, None)
    assert served.get("/v1/filters").json() == value
    assert served.ask("PUT", "/v1/filters", {"uid": 5}).json()["uid"] == 5
    assert served.ask("PUT", "/v1/filters", {}).json() == dict.fromkeys(Filters._fields)


@pytest.mark.parametrize(
    "wish",
    [
        {"pid": "1"},
        {"pid": True},
        {"pid": 2**40},
        {"pid": -1},
        {"pid": 1.5},
        {"comm": ""},
        {"comm": "x" * 16},
        {"comm": "a\0"},
        {"uid": "root"},
        {"uid": 2**32},
        {"user": "no-such-user"},
        {"user": -1},
        {"user": "root", "uid": 0},
        {"cgroup": "../../etc"},
        {"cgroup": 7},
        {"cgroups": "/"},
    ],
)
def test_wrong_filters(served: Served, wish: dict[str, Any]) -> None:
    served.ask("PUT", "/v1/filters", wish).refused(422)
    assert served.source.filters == Filters()


def test_interval(served: Served) -> None:
    assert served.ask("PUT", "/v1/interval", {"seconds": 0.5}).json() == {"seconds": 0.5}
    assert served.source.interval == 0.5
    assert served.get("/v1/interval").json() == {"seconds": 0.5}
    wrong: list[Any] = [0, -1, 1e9, "1", True, None, [1]]
    for value in wrong:
        served.ask("PUT", "/v1/interval", {"seconds": value}).refused(422)
    answer = served.ask(
        "PUT", "/v1/interval", b'{"seconds": 1e999}', Content_Type="application/json"
    )
    answer.refused(422)
    assert served.source.interval == 0.5


def test_search(served: Served) -> None:
    found = served.get("/v1/search?q=malloc").json()["found"]
    assert found[0] == {
        "spec": "uprobe:libc:malloc",
        "mechanism": "uprobe",
        "note": "libc.so.6",
        "cost": 1240.0,
    }
    served.get("/v1/search").refused(422)
    served.get("/v1/search?q=a&q=b").refused(422)
    served.get(f"/v1/search?q={'a' * 501}").refused(422)


# The doctor, health, and what is not there.


def test_the_doctor_is_asked_where_there_are_privileges(served: Served) -> None:
    assert served.get("/v1/doctor").json() == {"name": "doctor"}
    served.source.helped = lambda name: {"ok": False, "why": "busy", "fix": "later"}
    assert served.get("/v1/doctor").refused(503) == "busy"


def test_health_is_whether_frames_come(served: Served) -> None:
    assert served.get("/healthz").json() == {"ok": True}
    frame = served.source.frame()
    object.__setattr__(frame, "mono", frame.mono - 60)
    served.source.on_frame(frame)
    served.run(_nothing)
    served.get("/healthz").refused(503)
    served.source.push()
    served.run(_nothing)
    assert served.get("/healthz").status == 200


async def _nothing() -> None:
    """Lets what was asked of the loop before be done."""


def test_unknown_addresses_methods_and_parameters(served: Served) -> None:
    for path in ("/", "/v1", "/v1/probes/", "/v1//probes", "/v1/probes/a/b", "/%00", "/v1/%2e%2e"):
        served.get(path).refused(404)
    answer = served.ask("DELETE", "/v1/probes")
    answer.refused(405)
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}
    served.ask("BREW", "/v1/runs").refused(405)
    served.get("/v1/probes?all=1").refused(422)
    assert served.ask("HEAD", "/v1/probes").body == b""


def test_a_body_is_only_so_long(served: Served) -> None:
    long = b'{"comm": "' + b"a" * 70_000 + b'"}'
    answer = served.ask("PUT", "/v1/filters", long, Content_Type="application/json")
    answer.refused(413)
    parts = (b"x" * 1000 for _ in range(100))
    headers = {"Content-Type": "application/json"}
    with served.open("PUT", "/v1/filters", parts, headers, encode_chunked=True) as response:
        assert response.status == 411, "one that does not say its length may be of any"
        assert json.loads(response.read())["why"]


def test_what_fails_within_is_one_line_and_no_traceback(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken\x1b[31m")

    monkeypatch.setattr(served.agent.control, "set_filters", fail)
    answer = served.ask("PUT", "/v1/filters", {})
    answer.refused(500)
    assert b"broken" not in answer.body
    said: list[str] = []

    def lines() -> list[str]:
        said.extend(capsys.readouterr().err.splitlines())
        return said

    (line,) = eventually("it is said", lines)
    assert line.startswith("probetop: PUT /v1/filters failed: RuntimeError")
    assert "\x1b" not in line


# The description.


def test_routes_and_description_agree(served: Served) -> None:
    document = served.get("/openapi.json").json()
    described = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if method != "parameters"
    }
    assert described == {(operation.method, operation.path) for operation in OPERATIONS}
    assert document["openapi"].startswith("3.1")
    assert "security" not in document


def test_every_reference_of_the_description_leads_somewhere() -> None:
    text = openapi.description(OPERATIONS, tokens=True).decode()
    document = json.loads(text)
    for reference in text.split('"$ref": "')[1:]:
        name = reference.partition('"')[0].removeprefix("#/components/schemas/")
        assert name in document["components"]["schemas"]
    assert document["security"] == [{"token": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []


WHERE = {
    "probe": "/v1/probes/latency",
    "search": "/v1/search?q=malloc",
    "run": "/v1/runs/{id}",
}


def answered(served: Served, operation: Operation, run: str) -> Any:
    """What a GET of this operation answers."""
    path = WHERE.get(operation.name, operation.path).format(id=run)
    return served.get(path).json()


def test_answers_have_the_types_that_are_described(served: Served) -> None:
    run = served.ask("POST", "/v1/runs", {"seconds": 60, "filters": {"pid": os.getpid()}}).json()
    msgspec.convert(run, schemas.Run)
    report = {"ok": True, "machine": {}, "checks": [{}]}
    served.source.helped = lambda name: {"ok": True, "result": report}
    seen = 0
    for operation in OPERATIONS:
        kind = operation.answers.get(200)
        if operation.method == "GET" and isinstance(kind, type):
            msgspec.convert(answered(served, operation, run["id"]), kind)
            seen += 1
    assert seen > 8
    served.ask("DELETE", f"/v1/runs/{run['id']}")


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.body], ids=lambda o: o.name)
def test_null_is_taken_where_the_description_says_so(served: Served, operation: Operation) -> None:
    """Also absent members: each is sent alone beside those that are required."""
    document = served.get("/openapi.json").json()
    method = document["paths"][operation.path][operation.method.lower()]
    reference = method["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    needed = {name: {"seconds": 1, "spec": "runq"}[name] for name in schema["required"]}
    assert operation.body is not None
    for name, member in schema["properties"].items():
        nullable = {"type": "null"} in member.get("anyOf", ()) or "null" in member.get("type", ())
        value = {**needed, name: None}
        if nullable:
            msgspec.convert(value, operation.body)
        else:
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert(value, operation.body)


def test_parse_takes_json_alone() -> None:
    assert strict_json(b'{"a": [1, "\xc3\xa9"]}') == {"a": [1, "\u00e9"]}
    for data in (b"", b"nul", b"{} {}", b"Infinity", b"\xc3", b'"\\udfff"', b'{"a": 1, "a": 2}'):
        with pytest.raises(ProbeError):
            strict_json(data)


def test_the_agent_never_imports_what_draws() -> None:
    program = (
        "import sys\n"
        "for name in ('textual', 'rich', 'jinja2', 'bcc'): sys.modules[name] = None\n"
        "import tui.agent.service as service\n"
        "service.preload()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
