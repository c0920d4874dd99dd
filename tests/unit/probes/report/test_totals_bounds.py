# SPDX-License-Identifier: Apache-2.0
"""Recordings that are made to take memory: what is kept of them is bounded."""

from __future__ import annotations

import gc
import zlib
from pathlib import Path

import pytest

from probes.core import histogram
from probes.core.errors import ProbeError
from probes.execs import process_log
from probes.execs.process_log import ExecLog
from probes.execs.program_stats import Programs
from probes.execs.sample import ExecEvent
from probes.pmc import sum as pmc_sum
from probes.pmc import totals
from probes.pmc.sample import PmcSample, TaskTimes
from probes.recording import bounded_json
from probes.recording.framing import DELTA, HEADER, KEY
from probes.report import recording_totals as totals_module
from probes.sums import accumulators, counter_tables
from probes.sums.counter_tables import Histograms, Unusual
from probes.sums.record_fields import TIMED
from tui.commands import diff_input as runs
from tui.registry import SAMPLES


def raw(path: Path, *texts: str) -> str:
    """A recording of these records, as they stand."""
    checksum, out = 0, b"PROBETOP RECORDING 1\n"
    for number, text in enumerate(texts):
        payload = zlib.compress(text.encode(), 0)
        checksum = zlib.crc32(payload, checksum if number else 0)
        out += HEADER.pack(DELTA if number else KEY, len(payload), checksum) + payload
    path.write_bytes(out)
    return str(path)


def of(probe: str, kind: str, moment: int, fields: str = "") -> str:
    """A record of one probe."""
    sample = f'[["{probe}"],[["{kind}",{{"state":"on"{fields}}}]]]'
    return f'{{"time":{moment},"mono":{moment},"samples":{sample}}}'


def test_an_event_of_no_kind_is_no_traceback(tmp_path: Path) -> None:
    path = raw(
        tmp_path / "a.ptrec",
        of("execs", "ExecSample", 1, ',"events":[["NoEvent",{}]]'),
        of("execs", "ExecSample", 2),
    )
    with pytest.raises(Unusual):
        runs._totalled(path)
    with pytest.raises(ProbeError, match="no interval"):
        runs.load(path)


def test_a_record_whose_values_take_too_much_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = raw(tmp_path / "a.ptrec", of("syscalls", "SyscallSample", 1, ',"x":[[],[],[]]'))
    monkeypatch.setattr(bounded_json, "HARMLESS", 10)
    monkeypatch.setattr(totals_module, "MOST_WEIGHT", 100)
    with pytest.raises(Unusual, match="too much memory"):
        totals_module.totals(path, SAMPLES)


def test_changes_of_histograms_that_wait_keep_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    histograms = Histograms()
    text = b'[["read"],[[[[1],[1]],1,1]],[]' + b" " * 100_000 + b"]"
    timed = TIMED.decode(text)
    histograms.change("read", timed.values[0])
    del timed
    gc.collect()
    waiting = histograms._waiting["read"][0].buckets
    assert not any(holder is text for holder in gc.get_referents(waiting))
    monkeypatch.setattr(counter_tables, "MOST_WAITING", 10 * counter_tables.WAITING)
    for _ in range(50):
        histograms.change("read", TIMED.decode(text).values[0])
        assert sum([len(changes) for changes in histograms._waiting.values()]) <= 10
    assert histograms.sums()["read"].n == 51


def test_too_many_histograms_are_noticed_while_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter_tables, "MOST_WAITING", 1000)
    histograms = Histograms()

    def change_many() -> None:
        for number in range(accumulators.MOST_TIMED + 20):
            encoded = TIMED.decode(b'[["a"],[[[[1],[1]],1,1]]]').values[0]
            histograms.change(f"call{number}", encoded)

    with pytest.raises(Unusual, match="too many histograms"):
        change_many()


ONES = f"[{','.join(['1'] * (histogram.BUCKETS + 1))}]"


@pytest.mark.parametrize(
    "fields",
    [
        f',"calls":[["{129 * "a"}"],[[1,0]],[]]',
        f',"calls":[["read"],[[{4000 * "9"},0]],[]]',
        f',"latency":[["read"],[[[{ONES},{ONES}],1,1]]]',
    ],
    ids=["a long name", "a long number", "more buckets than there are"],
)
def test_what_no_machine_has_is_left_to_who_reads_frames(tmp_path: Path, fields: str) -> None:
    changes = of("syscalls", "SyscallSample", 2, fields)
    path = raw(tmp_path / "a.ptrec", of("syscalls", "SyscallSample", 1), changes)
    with pytest.raises(Unusual):
        runs._totalled(path)


def test_names_of_processes_that_counted_nothing_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "MOST_NAMES", 40)
    first = of("pmc", "PmcSample", 1)
    live = [of("pmc", "PmcSample", 2 + n, f',"comms":[[{n}],["a"]]') for n in range(50)]
    with pytest.raises(Unusual, match="too many names"):
        totals_module.totals(raw(tmp_path / "a.ptrec", first, *live), SAMPLES)
    gone = [
        of("pmc", "PmcSample", 2 + n, f',"comms":[[{n}],["a"],[{n - 1}]]') for n in range(1, 500)
    ]
    found = totals_module.totals(raw(tmp_path / "b.ptrec", first, *gone), SAMPLES).probes["pmc"]
    assert isinstance(found, totals.Pmc)
    assert len(found._comms) <= 41
    assert 499 in found._comms


def test_sums_forget_names_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pmc_sum, "MOST_NAMES", 10)
    total, before = pmc_sum.PmcSum(), PmcSample(state="on")
    for n in range(50):
        tasks = {7: TaskTimes(1000 * (n + 1), 1, 0, None)}
        after = PmcSample(state="on", tasks=tasks, comms={7: "kept", 100 + n: "gone"})
        total.add(before, after, accumulators.Tick(1.0))
        before = after
    assert len(total._comms) <= 11
    assert total._comms[7] == "kept"


def started(pid: int, args: tuple[str, ...], ret: int = 0) -> ExecEvent:
    """An execution that nobody sees the end of."""
    return ExecEvent(time=5.0, pid=pid, ppid=1, uid=0, comm="x", parent="p", args=args,
                     truncated=False, ret=ret, cgroup=None, path="/bin/x")  # fmt: skip


@pytest.mark.parametrize("ret", [0, -2])
def test_programs_keep_no_row_that_the_log_has_forgotten(ret: int) -> None:
    log, programs = ExecLog(limit=10), Programs()
    for pid in range(200):
        log.add([started(pid, ("/bin/x",), ret)])
        programs.take(log, 5.0)
        assert len(programs._open) <= 10
    counted = programs.finish()["x"]
    assert counted.starts + sum(counted.failed.values()) == 200


def test_rows_go_where_their_texts_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_log, "MOST_BYTES", 100_000)
    log = ExecLog()
    for pid in range(100):
        log.add([started(pid, ("/bin/x", "a" * 9000))])
        assert sum([len(arg) for row in log.rows for arg in row.args or ()]) <= 110_000
    assert [row.pid for row in log.rows] == list(range(100 - len(log.rows), 100))
    assert len(log.rows) > 5
    log.add([started(500, ("/bin/x", "a" * 200_000))])
    assert [row.pid for row in log.rows] == [500]
