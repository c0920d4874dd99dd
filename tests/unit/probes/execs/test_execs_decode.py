# SPDX-License-Identifier: Apache-2.0
"""Records of the exec probe's ring buffer as events, and events as the contract has them."""

from __future__ import annotations

import json
import struct
import time
from typing import Any

import pytest

from probes.core.errors import ProbeError
from probes.execs import probe as execs
from probes.execs.probe import ExecProbe, split_args
from probes.execs.sample import ExecEvent, ExecSample, ExitEvent
from probes.host.cgroups import Cgroups
from tests.paths import PROBES

SOURCE = (PROBES / "execs" / "execs.bpf.c").read_text()


class Ring:
    """A ring buffer whose records are given."""

    fd = -1

    def __init__(self, records: list[bytes]) -> None:
        self.records = records

    def drain(self) -> list[memoryview]:
        records, self.records = self.records, []
        return [memoryview(record) for record in records]


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> ExecProbe:
    monkeypatch.setattr(Cgroups, "path", lambda self, number, *pids: f"/group{number}")
    return ExecProbe()


def drained(probe: ExecProbe, *records: bytes) -> list[ExecEvent | ExitEvent]:
    probe._ring = Ring(list(records))  # type: ignore[assignment]
    probe.drain()
    events, probe._events = probe._events, []
    return events


def exec_record(args: bytes = b"", **fields: Any) -> bytes:
    f: dict[str, Any] = {
        "pid": 7, "time": 10**9, "started": 10**8, "cgroup": 3, "ppid": 6, "uid": 1000,
        "euid": 1000, "ret": 0, "flags": 0,
        "comm": b"prog", "parent": b"sh", "path": b"/bin/prog",
    }  # fmt: skip
    f |= fields
    return struct.pack(
        "=IIQQQIIiI16s16s128sII", 1, f["pid"], f["time"], f["started"], f["cgroup"], f["ppid"],
        f["uid"], f["ret"], f["flags"], f["comm"], f["parent"], f["path"], len(args), f["euid"],
    ) + args  # fmt: skip


def exit_record(**fields: Any) -> bytes:
    f: dict[str, Any] = {"pid": 7, "time": 3 * 10**9, "begun": 5 * 10**8, "started": 10**8}
    f |= {"code": 0} | fields
    return struct.pack(
        "=IIQQQII16s", 2, f["pid"], f["time"], f["begun"], f["started"], f["code"], 0, b"prog"
    )


def test_execution(probe: ExecProbe) -> None:
    (event,) = drained(probe, exec_record(b"prog\0--all\0\0x y\0"))
    assert isinstance(event, ExecEvent)
    assert abs(event.time - (time.time() - time.monotonic() + 1)) < 60
    assert event == ExecEvent(
        time=event.time, pid=7, ppid=6, uid=1000, comm="prog", parent="sh",
        args=("prog", "--all", "", "x y"), truncated=False, ret=0, cgroup="/group3",
        path="/bin/prog", started=10**8, euid=1000,
    )  # fmt: skip


def test_failed_truncated_and_unreadable(probe: ExecProbe) -> None:
    failed, cut, blind = drained(
        probe,
        exec_record(b"x\0", ret=-2),
        exec_record(b"a\0bcd", flags=1),
        exec_record(b"", flags=2, path=b""),
    )
    assert isinstance(failed, ExecEvent)
    assert isinstance(cut, ExecEvent)
    assert isinstance(blind, ExecEvent)
    assert (failed.ret, failed.args) == (-2, ("x",))
    assert (cut.truncated, cut.args) == (True, ("a", "bcd"))
    # Unknown is not the same as none.
    assert (blind.args, blind.truncated, blind.path) == (None, False, None)


@pytest.mark.parametrize(
    ("code", "status", "signal"),
    [(0, 0, 0), (7 << 8, 7, 0), (255 << 8, 255, 0), (9, 0, 9), (11 | 0x80, 0, 11)],
)
def test_exit_codes_are_as_wait_gives_them(
    probe: ExecProbe, code: int, status: int, signal: int
) -> None:
    (event,) = drained(probe, exit_record(code=code))
    assert isinstance(event, ExitEvent)
    assert (event.exit_code, event.signal) == (status, signal)


def test_duration_is_since_the_last_execution(probe: ExecProbe) -> None:
    events = drained(
        probe,
        exec_record(time=10**9),
        exec_record(time=2 * 10**9),
        exec_record(time=25 * 10**8, ret=-2),
        exit_record(time=3 * 10**9),
        exit_record(time=4 * 10**9, begun=10**9, started=7 * 10**8),
    )
    durations = [event.duration for event in events if isinstance(event, ExitEvent)]
    # The second end is of another process, which never executed anything: since its start.
    assert durations == [10**9, 3 * 10**9]


def test_an_end_that_was_lost_leaves_nothing_to_the_next_process_of_that_pid(
    probe: ExecProbe,
) -> None:
    _, end = drained(
        probe,
        exec_record(time=10**9, started=10**8),
        exit_record(time=9 * 10**9, begun=8 * 10**9, started=7 * 10**9),
    )
    assert isinstance(end, ExitEvent)
    assert end.duration == 10**9


def test_too_many_events_keep_the_newest(probe: ExecProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execs, "MAX_EVENTS", 3)
    events = drained(probe, *(exec_record(pid=pid) for pid in range(10)))
    assert [event.pid for event in events] == [7, 8, 9]
    assert probe._dropped == 7


def test_remembered_starts_are_bounded(probe: ExecProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execs, "MOST_RUNNING", 4)
    drained(probe, *(exec_record(pid=pid) for pid in range(50)))
    assert [pid for pid, _ in probe._executed] == [46, 47, 48, 49]


@pytest.mark.parametrize(
    ("raw", "args"),
    [
        (b"", ()),
        (b"\0", ("",)),
        (b"a\0", ("a",)),
        (b"a\0\0\0", ("a", "", "")),
        (b"a\0cut", ("a", "cut")),
        (b"\xff\0", ("\\xff",)),
    ],
)
def test_argument_vectors(raw: bytes, args: tuple[str, ...]) -> None:
    assert split_args(raw) == args


def test_contract_is_json_that_every_reader_takes(probe: ExecProbe) -> None:
    events = drained(
        probe,
        exec_record(b"\xff\x1b[2J\0", comm=b"\x1b[1m", path=b"/x\xfe"),
        exit_record(code=9),
        exit_record(code=50),
    )
    sample = ExecSample(state="on", events=tuple(events), dropped=5)
    found = json.loads(json.dumps(ExecProbe.contract(None, sample, 1), allow_nan=False))
    started, killed, odd = found["events"]
    assert found["dropped"] == 5
    assert started["type"] == "exec"
    assert started["args"] == ["\\xff\x1b[2J"]
    assert (started["comm"], started["path"]) == ("\x1b[1m", "/x\\xfe")
    assert (killed["type"], killed["signal"], killed["signal_name"]) == ("exit", 9, "SIGKILL")
    assert (odd["signal"], odd["signal_name"]) == (50, "SIG50")
    assert {"time", "pid", "ppid", "uid", "truncated", "ret", "cgroup"} <= started.keys()
    assert started["started"] == killed["started"] == 10**8


def test_there_is_no_option(probe: ExecProbe) -> None:
    with pytest.raises(ProbeError, match="execs has no option latency"):
        probe.set_option("latency", True)
