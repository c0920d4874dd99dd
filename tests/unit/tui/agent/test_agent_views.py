# SPDX-License-Identifier: Apache-2.0
"""What clients learn who may only read: of private files, and of names that root was told."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probes.core.cgroup_names import CgroupName
from probes.core.frame import Frame
from probes.core.sample import Estimate
from probes.execs.sample import ExecEvent, ExecSample
from probes.host import content_file
from probes.latency.sample import LatencySample, Spent, Target
from probes.recording.framing import Decoder
from tests.unit.agent import CONTROL, READ, TOKENS, Served, eventually
from tui.agent.http import admission
from tui.agent.http.frame_streams import RECORDS
from tui.agent.options import Listen
from tui.agent.state import private_targets
from tui.agent.state.client_view import views
from tui.agent.state.private_targets import PrivateTargets, seen_by_all

CONTAINER = "0123456789ab" * 5 + "0123"
CGROUP = f"/system.slice/docker-{CONTAINER}.scope"
POD = "secret-pod"
WORDS = "words-of-a-query"
SECRETS = ("hidden-folder", "hidden-function", "hidden-reason", "hidden-mend")
GETS = (
    "/v1/probes",
    "/v1/probes/latency",
    "/v1/latency/targets",
    "/v1/filters",
    "/v1/snapshot.json",
    "/v1/snapshot.html",
    "/v1/runs",
    "/metrics",
    "/healthz",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may search, with files that everybody may read."""
    with tempfile.TemporaryDirectory(prefix="probetop-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def program(path: Path, mode: int = 0o755) -> str:
    path.write_bytes(b"\x7fELF")
    path.chmod(mode)
    return str(path)


def test_which_paths_everybody_sees(folder: Path) -> None:
    private, passed = folder / "private", folder / "passed"
    for path, mode in ((private, 0o750), (passed, 0o711)):
        path.mkdir()
        path.chmod(mode)
    inside = program(private / "x")
    link, up = folder / "link", folder / "up"
    link.symlink_to(inside)
    up.symlink_to("passed/../../" + folder.name + "/passed/x")
    loop = folder / "loop"
    loop.symlink_to("loop")
    assert seen_by_all(program(folder / "x"))
    assert seen_by_all(program(passed / "x"))
    assert seen_by_all(str(up))
    for other in (
        inside, str(link), str(loop), f"{private}/../x", program(folder / "y", 0o750), "x",
        f"/proc/self/root{folder}/x", f"/proc/{os.getpid()}/root{folder}/x", f"{folder}/none",
        str(folder), f"{folder}/x/y", f"{folder}/x\0", "",
    ):  # fmt: skip
        assert not seen_by_all(other), other


@pytest.fixture(params=["token", "socket", "public"])
def served(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Served]:
    """An agent that was started with a target in a private file, and with one that failed.

    Who asks it is the reader of the parameter.
    """
    if request.param == "socket":
        monkeypatch.setattr(admission, "peer_uid", lambda sock: 65534)
    kinds: dict[str, dict[str, Any]] = {
        "token": {"tokens": TOKENS},
        "socket": {"listen": Listen(path=str(folder / "s"))},
        "public": {"as_owner": False},
    }
    private = folder / "hidden-folder"
    private.mkdir()
    private.chmod(0o700)
    name = program(private / "x")
    with Served(**kinds[request.param]) as one:
        one.kind = request.param  # type: ignore[attr-defined]
        for spec, state in ((f"uprobe:{name}:hidden-function", "on"), (f"uprobe:{name}2:f", "")):
            one.source.traced[spec] = Target(
                spec=spec, state="on" if state else "failed", mechanism="uprobe",
                why="hidden-reason", fix="hidden-mend", file="current", functions=2,
            )  # fmt: skip
        spec = "uprobe:libc:f"
        one.source.traced[spec] = replace(one.source.traced[f"uprobe:{name}2:f"], spec=spec)
        yield one


def all_of(served: Served, **headers: str) -> dict[str, bytes]:
    """All that a GET answers, by its path."""
    return {path: served.get(path, **headers).body for path in GETS}


def reads(served: Served) -> dict[str, str]:
    with_token = served.kind == "token"  # type: ignore[attr-defined]
    return {"Authorization": f"Bearer {READ}"} if with_token else {}


def push_named(served: Served) -> Frame:
    """A Frame of processes in a container whose pod a runtime has told, with rows of targets."""
    frame = served.source.frame()
    samples = dict(frame.samples)
    execs, latency = samples["execs"], samples["latency"]
    assert isinstance(execs, ExecSample)
    assert isinstance(latency, LatencySample)
    events = tuple(
        [replace(e, cgroup=CGROUP) if isinstance(e, ExecEvent) else e for e in execs.events]
    )
    named = CgroupName(CGROUP, None, POD, "ns", POD, "docker", CONTAINER)
    spec = next(spec for spec in served.source.traced if "hidden-function" in spec)
    samples["execs"] = replace(execs, events=events, names={CGROUP: named})
    samples["latency"] = replace(
        latency, why=f"hidden-reason: /{spec}", processes={(spec, 7): Spent(1, 2)}, comms={7: "x"},
        texts={(spec, WORDS): Spent(1, 2)}, estimated_processes={(spec, 7): Estimate(1, 2)},
        estimated_texts={(spec, WORDS): Estimate(1, 2)},
    )  # fmt: skip
    made = replace(frame, samples=samples)
    served.source.on_frame(made)
    return made


def come(served: Served, frame: Frame) -> None:
    """Wait until the agent has a Frame."""
    eventually("it has come", lambda: served.agent.hub.frame is frame)


def page_of_frames(served: Served) -> None:
    """Pages are what the helper would be given to draw."""

    def helped(name: str) -> dict[str, Any]:
        source, page = served.page_files
        data = content_file.read(source)
        content_file.fill(page, [repr(list(Decoder().feed(data))).encode()])
        return {"ok": True, "result": {}}

    served.source.helped = helped


def test_readers_learn_nothing_of_private_targets(served: Served) -> None:
    page_of_frames(served)
    for _ in range(3):
        come(served, push_named(served))
    for path, body in all_of(served, **reads(served)).items():
        assert [word for word in SECRETS if word.encode() in body] == [], path
    targets = served.get("/v1/latency/targets", **reads(served)).json()["targets"]
    seen = {one["spec"]: (one["state"], one["why"], one["functions"]) for one in targets}
    why = "only who controls the agent is told why"
    assert seen["uprobe:private-1"][0] != seen["uprobe:private-2"][0]
    assert {why} == {seen[spec][1] for spec in seen if spec != "runq"}
    assert (seen["uprobe:private-1"][2], seen["uprobe:libc:f"][2]) == (0, 2)
    latency = served.get("/v1/probes/latency", **reads(served)).json()
    assert latency["options"]["targets"] == [one["spec"] for one in targets]
    metrics = served.get("/metrics", **reads(served)).body
    assert b'target="uprobe:private-1"' in metrics
    assert b'target="runq"' in metrics


def test_readers_frames_have_neither(served: Served) -> None:
    """Frames as events and as records, the first and the changes."""
    told = served.kind == "token"  # type: ignore[attr-defined]
    push_named(served)
    for kind in (RECORDS, "text/event-stream"):
        headers = {"Accept": kind, **reads(served)}
        with served.open("GET", "/v1/frames", headers=headers) as response:
            eventually("it listens", lambda: len(served.agent.streams) == 1)
            texts = list[str]()
            for _ in range(3):
                push_named(served)
                if kind == RECORDS:
                    decoder, items = Decoder(), list[object]()
                    while not any(isinstance(item, Frame) for item in items):
                        items += decoder.feed(response.read1(1 << 20))
                    texts.append(repr(items))
                    break
                texts.append("".join([response.readline().decode() for _ in range(3)]))
        assert [word for word in SECRETS if word in repr(texts)] == []
        assert all("uprobe:private-1" in text for text in texts)
        assert any((POD in text) == told for text in texts)
        public = served.kind == "public"  # type: ignore[attr-defined]
        assert not (public and WORDS in repr(texts))
        eventually("it has gone", lambda: len(served.agent.streams) == 0)


def test_every_table_of_targets_has_labels_and_no_texts_for_the_public() -> None:
    spec = "uprobe:/hidden-folder/x:f"
    tables: dict[str, Any] = {
        name: {(spec, WORDS if "Name" in hint else 7): Estimate(1, 2)}
        for name, hint in LatencySample.__annotations__.items()
        if hint.startswith("Mapping[tuple[")
    }
    assert len(tables) >= 4
    sample = LatencySample(state="on", targets={spec: Target(spec=spec, state="on")}, **tables)
    seen = views(PrivateTargets())
    for sight in ("token", "socket", "public"):
        shown = seen[sight]._sample(sample)
        assert "hidden-folder" not in repr(shown)
        assert (WORDS in repr(shown)) == (sight != "public")
        assert isinstance(shown, LatencySample)
        assert shown.estimated_processes


def test_names_that_runtimes_told_are_for_tokens(served: Served) -> None:
    told = served.kind == "token"  # type: ignore[attr-defined]
    page_of_frames(served)
    names = served.agent.metrics
    names._name_of = lambda path: CgroupName(path, None, POD, "ns", POD, "docker", CONTAINER)
    names.crowd._read = lambda pid: CGROUP
    for _ in range(3):
        come(served, push_named(served))
    bodies = all_of(served, **reads(served))
    public = served.kind == "public"  # type: ignore[attr-defined]
    seen = {path for path, body in bodies.items() if POD.encode() in body}
    assert seen == ({"/v1/snapshot.json", "/v1/snapshot.html", "/metrics"} if told else set())
    # What the path of the control group says itself is everybody's.
    assert CONTAINER[:12].encode() in bodies["/metrics"]
    assert public or CONTAINER[:12].encode() in bodies["/v1/snapshot.json"]


def test_who_controls_it_sees_all_and_readers_of_its_runs_do_not(folder: Path) -> None:
    mine, others = (f"Bearer {token}" for token in (CONTROL, READ))
    private = folder / "hidden-folder"
    private.mkdir(0o700)
    spec = f"uprobe:{program(private / 'x')}:hidden-function"
    open_one = f"uprobe:{program(folder / 'x')}:f"
    with Served(tokens=TOKENS) as served:
        served.source.broken[f"{spec}2"] = ("hidden-reason", "hidden-mend")
        wish = {"seconds": 1.0, "targets": [spec, open_one, f"{spec}2"]}
        run = served.ask("POST", "/v1/runs", wish, Authorization=mine).json()
        assert run["targets"] == wish["targets"]
        path = f"/v1/runs/{run['id']}"

        def done() -> bool:
            served.source.push()
            state = served.get(path, Authorization=mine).json()["state"]
            return bool(state != "running")

        eventually("the run has ended", done)
        shown = served.get(path, Authorization=others)
        assert [word for word in SECRETS if word.encode() in shown.body] == []
        assert shown.json()["targets"] == ["uprobe:private-1", open_one, "uprobe:private-2"]
        assert shown.json()["result"] is not None
        assert open_one in str(shown.json()["result"])
        body = served.get(path, Authorization=mine).body
        assert [word for word in SECRETS if word.encode() in body] == list(SECRETS)
        served.ask("POST", "/v1/latency/targets", {"spec": spec}, Authorization=mine)
        served.source.push()
        for one in ("/v1/latency/targets", "/v1/probes", "/metrics"):
            body = served.get(one, Authorization=mine).body
            assert b"hidden-function" in body, one
            assert b"hidden" not in served.get(one, Authorization=others).body, one


def test_a_file_system_that_answers_nothing_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    asked, answer = list[str](), list[bool]()

    def hangs(path: str) -> bool:
        asked.append(path)
        eventually("the test lets it go on", lambda: answer)
        return True

    monkeypatch.setattr(private_targets, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(private_targets, "seen_by_all", hangs)
    private = PrivateTargets()
    specs = [f"uprobe:{folder}/{number}:f" for number in range(10)]
    with Served() as served:
        for spec in specs:
            served.run(private.learn, [spec])
        answer.append(True)
    assert all(map(private.is_private, specs))
    assert len(asked) == private_targets.MOST_CHECKS


def test_a_folder_that_is_closed_later_makes_its_targets_private(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_open = [True]
    monkeypatch.setattr(private_targets, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(private_targets, "seen_by_all", lambda path: is_open[0])
    private, spec = PrivateTargets(), "uprobe:/srv/app:f"
    with Served() as served:
        served.run(private.learn, [spec])
        assert not private.is_private(spec)
        is_open[0] = False
        served.run(private.learn, [spec])
    assert private.is_private(spec)
