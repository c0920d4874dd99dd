# SPDX-License-Identifier: Apache-2.0
"""Who may ask what: tokens, hosts, origins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.agent import CONTROL, OWN, READ, TOKENS, Served
from tui.agent import service
from tui.agent.http.auth import shows_processes
from tui.agent.http.operations import OPERATIONS
from tui.agent.options import Listen


@pytest.fixture(scope="module")
def open_one() -> Iterator[Served]:
    with Served(hosts=("web-3.example.org",)) as served:
        yield served


@pytest.fixture(scope="module")
def guarded() -> Iterator[Served]:
    with Served(tokens=TOKENS) as served:
        yield served


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:9435", "127.0.0.1:1", "[::1]:9", "[::1]", "Web-3.Example.org"],
)
def test_names_that_it_goes_by(open_one: Served, host: str) -> None:
    assert open_one.get("/v1/filters", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "10.0.0.1", "::1"],
)
def test_a_name_that_was_given_to_this_address_is_refused(open_one: Served, host: str) -> None:
    assert "name" in open_one.get("/v1/filters", Host=host).refused(421)
    # Not even whether it is alive.
    open_one.get("/healthz", Host=host).refused(421)


def test_two_hosts_are_no_host(open_one: Served) -> None:
    data = b"GET /v1/filters HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n"
    assert b" 400 " in open_one.raw(data).splitlines()[0]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost", ""])
def test_pages_of_others_are_refused(open_one: Served, origin: str) -> None:
    open_one.get("/v1/filters", Origin=origin).refused(403)
    answer = open_one.ask("PUT", "/v1/probes/execs", {"on": False}, Origin=origin)
    answer.refused(403)
    assert ("toggle", "execs", False) not in open_one.source.commands


def test_what_pages_of_others_embed_is_refused(open_one: Served) -> None:
    for site in ("cross-site", "same-site"):
        open_one.get("/v1/doctor", Sec_Fetch_Site=site).refused(403)
    for site in ("none", "same-origin"):
        assert open_one.get("/v1/filters", Sec_Fetch_Site=site).status == 200


def test_its_own_page_may_ask(open_one: Served) -> None:
    answer = open_one.get("/v1/filters", Origin="http://localhost:9", Host="localhost:9")
    assert answer.status == 200
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "x/json"])
def test_bodies_as_forms_send_them_are_refused(open_one: Served, kind: str) -> None:
    answer = open_one.ask("PUT", "/v1/filters", b"{}", Content_Type=kind)
    assert "JSON" in answer.refused(415)


def test_no_preflight_is_ever_answered(open_one: Served) -> None:
    answer = open_one.ask("OPTIONS", "/v1/filters", Origin="http://localhost", Host="localhost")
    answer.refused(405)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {CONTROL}"},
        {"Authorization": f"Bearer {CONTROL}x"},
        {"Authorization": f"Bearer {CONTROL[:-1]}"},
        {"Authorization": f"Bearer {CONTROL.upper()}"},
        {"Authorization": "Bearer \xff\xfe"},
    ],
)
def test_without_a_right_token_nothing_is_told(guarded: Served, header: dict[str, str]) -> None:
    before = list(guarded.source.commands)
    for method, path, *_ in OPERATIONS:
        if path == "/healthz":
            continue
        address = path.format(name="execs", id="x")
        answer = guarded.ask(method, address, {} if method in ("PUT", "POST") else None, **header)
        answer.refused(401)
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="probetop"'
    assert guarded.get("/nothing", **header).refused(401)
    assert guarded.source.commands == before


def test_health_needs_no_token_and_no_name(guarded: Served) -> None:
    assert guarded.get("/healthz", Host="10.1.2.3:9435").json() == {"ok": True}


def test_a_read_token_reads_and_no_more(guarded: Served) -> None:
    token = {"Authorization": f"bearer {READ}"}
    assert guarded.get("/v1/probes", **token).status == 200
    # Searches are root's work, and few wait for it at a time.
    assert "reading" in guarded.get("/v1/search?q=malloc", **token).refused(403)
    before = list(guarded.source.commands)
    for method, path, *_ in OPERATIONS:
        if method != "GET":
            address = path.format(name="execs", id="x")
            body: Any = {} if method != "DELETE" else None
            assert "reading" in guarded.ask(method, address, body, **token).refused(403)
    assert guarded.source.commands == before


def test_the_doctor_tries_nothing_for_who_only_reads(guarded: Served) -> None:
    tried: list[str] = []

    def helped(name: str) -> dict[str, Any]:
        tried.append(name)
        return {"ok": True, "result": {"number": len(tried)}}

    guarded.source.helped = helped
    read, control = ({"Authorization": f"Bearer {token}"} for token in (READ, CONTROL))
    assert "control token" in guarded.get("/v1/doctor", **read).refused(403)
    assert tried == []
    assert guarded.get("/v1/doctor", **control).json() == {"number": 1}
    assert guarded.get("/v1/doctor", **read).json() == {"number": 1}
    assert guarded.get("/v1/doctor", **control).json() == {"number": 2}


def test_a_control_token_does_all(guarded: Served) -> None:
    token = {"Authorization": f"Bearer {CONTROL}"}
    answer = guarded.ask("PUT", "/v1/probes/execs", {"on": False}, **token)
    assert answer.json()["state"] == "off"


def test_every_answer_forbids_to_guess_and_to_keep(guarded: Served, open_one: Served) -> None:
    answers = [
        guarded.get("/v1/probes"),
        open_one.get("/v1/probes"),
        open_one.get("/nothing"),
        open_one.get("/healthz"),
        open_one.get("/v1/probes", Host="evil"),
    ]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "server" not in answer.headers


# Without a token file: anybody on this machine, and the user who started it.

PUBLIC = {
    "/v1/probes",
    "/v1/probes/{name}",
    "/v1/latency/targets",
    "/v1/filters",
    "/v1/interval",
    "/v1/frames",
    "/metrics",
    "/healthz",
    "/openapi.json",
}


def test_anybody_reads_little_and_changes_nothing() -> None:
    with Served(as_owner=False) as served:
        before = list(served.source.commands)
        for method, path, *_ in OPERATIONS:
            address = path.format(name="execs", id="x")
            body: Any = {} if method in ("PUT", "POST") else None
            with served.open(method, address, body) as response:
                allowed = method == "GET" and path in PUBLIC
                assert response.status == (200 if allowed else 401), (method, path)
                if not allowed:
                    assert b"curl -H @FILE" in response.read()
        assert served.source.commands == before
        # Methods and addresses that are not there tell nothing either.
        served.get("/v1/nothing").refused(401)
        served.ask("BREW", "/v1/probes").refused(401)


def test_its_own_token_controls_and_no_other_does(open_one: Served) -> None:
    assert open_one.ask("PUT", "/v1/probes/execs", {"on": True}).status == 200
    assert open_one.get("/v1/search?q=malloc").status == 200
    for secret in ("", "own", OWN[:-1], f"{OWN}x", OWN.upper()):
        answer = open_one.ask(
            "PUT", "/v1/probes/execs", {"on": False}, Authorization=f"Bearer {secret}"
        )
        answer.refused(401)
        # Who sends a wrong token is told so, and is not taken for somebody else.
        open_one.get("/v1/filters", Authorization=f"Bearer {secret}").refused(401)


def test_names_and_pages_are_checked_also_of_who_has_the_token(open_one: Served) -> None:
    open_one.ask("PUT", "/v1/probes/execs", {"on": False}, Host="evil.example").refused(421)
    open_one.ask("PUT", "/v1/probes/execs", {}, Origin="http://evil.example").refused(403)


def test_nothing_is_public_where_processes_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "shows_processes", lambda: False)
    with Served(as_owner=False) as served:
        assert "hidepid" in served.get("/v1/frames").refused(401)
        assert "hidepid" in served.get("/metrics").refused(401)
        assert served.get("/healthz").status == 200
    with Served() as served:
        assert served.get("/v1/filters").status == 200


@pytest.mark.parametrize(
    ("mounts", "shown"),
    [
        ("proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n", True),
        ("proc /proc proc rw,relatime,hidepid=invisible 0 0\n", False),
        ("proc /proc proc rw,hidepid=2,gid=4 0 0\n", False),
        ("proc /proc proc rw,hidepid=ptraceable 0 0\n", False),
        ("proc /proc proc rw,hidepid=0 0 0\n", True),
        ("proc /proc proc rw 0 0\nproc /proc proc rw,hidepid=1 0 0\n", False),
        ("proc /x/proc proc rw,hidepid=2 0 0\n", True),
        # What Python alone takes for a blank or a line's end, in names of mounts.
        ("proc /proc proc rw,hidepid=2 0 0\nx\u2003/proc\u2003x\u2003rw /m tmpfs rw 0 0\n", False),
        (
            "proc /proc proc rw,hidepid=2 0 0\nx /m\x0bp\u2003/proc\u2003proc\u2003rw t rw\n",
            False,
        ),
        ("proc /proc proc rw,hidepid=2 0 0\nx /m\rproc /proc proc rw 0 0\n", False),
        ("", True),
    ],
)
def test_whether_processes_are_hidden(mounts: str, shown: bool) -> None:
    assert shows_processes(mounts) is shown


OFFSETS = ("uprobe:/bin/true:main+4", "u:/bin/true:0x1c20", "uprobe:libc:malloc+0x0")


@pytest.mark.parametrize("spec", OFFSETS)
def test_places_inside_of_functions_are_refused(open_one: Served, spec: str) -> None:
    before = list(open_one.source.commands)
    for method, path, body in (
        ("POST", "/v1/latency/targets", {"spec": spec}),
        ("PUT", "/v1/probes/latency", {"options": {"targets": ["runq", spec]}}),
        ("POST", "/v1/runs", {"seconds": 1, "targets": [spec]}),
    ):
        answer = open_one.ask(method, path, body)
        assert "inside a function" in answer.refused(403)
        assert "--allow-offsets" in answer.json()["fix"]
    assert open_one.source.commands == before


def test_places_inside_of_functions_where_they_are_allowed() -> None:
    with Served(tokens=TOKENS, allow_offsets=True) as served:
        token = {"Authorization": f"Bearer {CONTROL}"}
        wish = {"spec": OFFSETS[0]}
        assert served.ask("POST", "/v1/latency/targets", wish, **token).status == 201
        token = {"Authorization": f"Bearer {READ}"}
        served.ask("POST", "/v1/latency/targets", {"spec": OFFSETS[1]}, **token).refused(403)


def test_a_unix_socket_has_no_name_to_check(tmp_path: Path) -> None:
    with Served(listen=Listen(path=str(tmp_path / "s"))) as served:
        assert served.get("/v1/filters", Host="whatever").status == 200
        served.get("/v1/filters", Origin="http://evil.example").refused(403)
