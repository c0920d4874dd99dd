# SPDX-License-Identifier: Apache-2.0
"""Frames over HTTP: events and records, heartbeats, and clients that do not read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPResponse
from typing import Any

import pytest

from probes.core.frame import Frame
from probes.execs.sample import ExecEvent, ExecSample
from probes.latency.sample import LatencySample, Spent
from probes.recording.framing import Decoder
from probes.report.stream import stream_object
from tests.unit.agent import Served, eventually
from tui.agent.http import frame_streams, server

RECORDS = {"Accept": frame_streams.RECORDS}


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as one:
        yield one


def listening(served: Served, number: int = 1) -> None:
    eventually("they listen", lambda: len(served.agent.streams) == number)


def event(response: HTTPResponse) -> tuple[int, Any]:
    """The next event: its id and its object."""
    lines = []
    while line := response.readline().strip():
        lines.append(line)
    if lines[0].startswith(b":"):
        return event(response)
    assert lines[0].startswith(b"id: ")
    assert lines[1].startswith(b"data: {")
    return int(lines[0][4:]), json.loads(lines[1][6:])


def test_events_are_the_objects_of_stream(served: Served) -> None:
    with served.open("GET", "/v1/frames") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        listening(served)
        served.source.push()
        first, value = event(response)
        assert value["host"] == "web-3"
        assert set(value["probes"]) == {"syscalls", "execs", "latency", "pmc"}
        # Counts are of the interval: 301,200 calls a second, more or less.
        assert 250_000 < value["probes"]["syscalls"]["rows"][0]["count"] < 350_000
        served.source.push()
        assert event(response)[0] == first + 1


def test_an_event_is_encoded_once_for_all(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def counted(*arguments: Any) -> Any:
        made.append(arguments)
        return stream_object(*arguments)

    monkeypatch.setattr(frame_streams, "stream_object", counted)
    with served.open("GET", "/v1/frames") as one, served.open("GET", "/v1/frames") as two:
        listening(served, 2)
        served.source.push()
        assert event(one) == event(two)
    assert len(made) == 1
    eventually("both are gone", lambda: not len(served.agent.streams))
    served.source.push()
    assert len(made) == 1


def decoded(response: HTTPResponse) -> Iterator[Frame | dict[str, Any]]:
    decoder = Decoder()
    while data := response.read1(65536):
        yield from decoder.feed(data)


def test_records_begin_with_a_whole_frame(served: Served) -> None:
    with served.open("GET", "/v1/frames", headers=RECORDS) as response:
        assert response.headers["Content-Type"] == frame_streams.RECORDS
        items = decoded(response)
        first = next(items)
        assert isinstance(first, Frame)
        listening(served)
        pushed = served.source.push()
        assert next(items) == pushed


def test_a_reader_that_was_slow_misses_no_event() -> None:
    reader = frame_streams.Records(None)
    with Served() as served:
        made = [served.source.frame() for _ in range(5)]
        for frame in made:
            reader.put(frame)

        async def take() -> bytes | None:
            return await reader.next()

        (got,) = Decoder().feed(served.run(take))
    events = [e for f in made for e in f.samples["execs"].events]  # type: ignore[attr-defined]
    assert isinstance(got, Frame)
    sample = got.samples["execs"]
    assert isinstance(sample, ExecSample)
    assert list(sample.events) == events
    assert got.mono == made[-1].mono


def put_secrets(served: Served) -> None:
    """A Frame with a program's arguments and a text that a target read."""
    frame = served.source.frame()
    samples = dict(frame.samples)
    execs, latency = samples["execs"], samples["latency"]
    assert isinstance(execs, ExecSample)
    assert isinstance(latency, LatencySample)
    program = next(event for event in execs.events if isinstance(event, ExecEvent))
    events = (replace(program, args=("curl", "secret-args"), path="/home/secret-path"),)
    samples["execs"] = replace(execs, events=(*execs.events, *events))
    samples["latency"] = replace(latency, texts={("runq", "secret-text"): Spent(7, 70)})
    served.source.on_frame(replace(frame, samples=samples))


SECRETS = ("secret-args", "secret-path", "secret-text")


def test_anybody_gets_frames_without_arguments_and_texts() -> None:
    with Served(as_owner=False) as served:
        with served.open("GET", "/v1/frames") as response:
            listening(served)
            put_secrets(served)
            _, value = event(response)
        assert [word for word in SECRETS if word in json.dumps(value)] == []
        executed = [one for one in value["probes"]["execs"]["events"] if one["type"] == "exec"]
        assert executed
        assert all(one["args"] is None and one["args_hidden"] for one in executed)
        assert value["probes"]["syscalls"]["rows"]
        with served.open("GET", "/v1/frames", headers=RECORDS) as response:
            items = decoded(response)
            first = next(items)
            put_secrets(served)
            for frame in (first, next(items)):
                assert [word for word in SECRETS if word in repr(frame)] == []
        for path in ("/metrics", "/v1/probes", "/v1/latency/targets"):
            assert [word for word in SECRETS if word.encode() in served.get(path).body] == []


def test_its_owner_gets_all_of_the_same_frame(served: Served) -> None:
    with served.open("GET", "/v1/frames") as mine:
        served.as_owner = False
        with served.open("GET", "/v1/frames") as other:
            listening(served, 2)
            put_secrets(served)
            (first, all_of_it), (second, less) = event(mine), event(other)
    assert first == second
    assert [word for word in SECRETS if word in json.dumps(all_of_it)] == list(SECRETS)
    rows = [value["probes"]["syscalls"]["rows"] for value in (all_of_it, less)]
    assert rows[0] == rows[1]


def test_anybody_takes_at_most_half_of_the_places(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_streams, "MOST_LISTENERS", 4)
    served.as_owner = False
    with served.open("GET", "/v1/frames"), served.open("GET", "/v1/frames"):
        listening(served, 2)
        served.get("/v1/frames").refused(429)
        served.as_owner = True
        with served.open("GET", "/v1/frames") as mine:
            assert mine.status == 200


@pytest.mark.parametrize("headers", [{}, RECORDS])
def test_signs_of_life(
    served: Served, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setattr(frame_streams, "HEARTBEAT", 0.05)
    with served.open("GET", "/v1/frames", headers=headers) as response:
        if headers:
            items = decoded(response)
            assert isinstance(next(items), Frame)
            assert next(items) == {}
        else:
            assert response.readline() == b": alive\n"


def test_there_are_only_so_many_clients(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_streams, "MOST_READERS", 1)
    monkeypatch.setattr(frame_streams, "MOST_LISTENERS", 1)
    with served.open("GET", "/v1/frames", headers=RECORDS), served.open("GET", "/v1/frames"):
        listening(served, 2)
        served.get("/v1/frames").refused(429)
        served.get("/v1/frames", **RECORDS).refused(429)
    eventually("they are gone", lambda: not len(served.agent.streams))
    assert served.ask("HEAD", "/v1/frames").status == 200


def test_who_has_too_much_waiting_is_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with Served() as served:

        async def overrun() -> frame_streams.Events:
            listener = frame_streams.Events()
            for _ in range(frame_streams.MOST_EVENTS + 1):
                assert not listener.closed
                listener.put(b"event")
            assert await listener.next() is None
            return listener

        assert served.run(overrun).overrun

        async def too_long() -> bool:
            listener = frame_streams.Events()
            listener.put(b"x" * (frame_streams.MOST_BYTES + 1))
            assert not listener.overrun
            listener.put(b"x")
            return listener.overrun

        assert served.run(too_long)


def test_a_client_that_does_not_read_is_dropped_and_others_are_not(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The good client is a thread of this process: it must not seem to stand still itself.
    monkeypatch.setattr(server, "STALL_SECONDS", 3.0)
    with served.open("GET", "/v1/frames") as good, served.connect() as bad:
        bad.sendall(b"GET /v1/frames HTTP/1.1\r\nHost: localhost\r\n\r\n")
        listening(served, 2)

        def dropped() -> int:
            served.source.push()
            event(good)
            stalled: int = served.server.counts.stalled + served.agent.streams.dropped
            return stalled

        # Its queue of events may be full before its connection has stood still for long enough.
        eventually("it is dropped", dropped)
        listening(served, 1)
        eventually("its connection is closed", lambda: served.server.connections == 1)
        # All of this time the loop went on, and the other one still gets events.
        assert served.get("/healthz").status == 200
        served.source.push()
        event(good)


def test_a_stop_ends_streams_in_order(served: Served) -> None:
    with served.open("GET", "/v1/frames") as response:
        listening(served)

        async def end() -> None:
            served.agent.streams.end()

        served.run(end)
        # The last chunk has come: it was not cut off.
        assert response.read() == b""
    served.get("/v1/frames").refused(429)


def test_probes_are_on_while_somebody_listens() -> None:
    with Served(linger=0.2) as served:

        def states() -> set[bool]:
            return set(served.source.on.values())

        eventually("nobody watches", lambda: states() == {False})
        assert served.get("/v1/probes").json()["watched"] is False
        assert served.get("/v1/probes/execs").json()["wanted"] is True
        with served.open("GET", "/v1/frames"):
            eventually("they are on", lambda: states() == {True})
            time.sleep(0.4)
            assert states() == {True}
        eventually("they are off again", lambda: states() == {False})


def test_a_look_switches_them_on_and_wishes_hold() -> None:
    with Served(linger=0.3) as served:
        served.ask("PUT", "/v1/probes/pmc", {"on": False})
        eventually("nobody watches", lambda: not any(served.source.on.values()))
        served.get("/v1/filters")
        assert not any(served.source.on.values())
        assert served.get("/v1/snapshot.json").status == 200
        assert served.source.on == {"syscalls": True, "execs": True, "latency": True, "pmc": False}
        eventually("nobody watches", lambda: not any(served.source.on.values()))
        # Who wants one on wants to see it.
        assert served.ask("PUT", "/v1/probes/pmc", {"on": True}).json()["state"] == "on"
        assert all(served.source.on.values())
