# SPDX-License-Identifier: Apache-2.0
"""A run in which everything that a process or a user chose is hostile."""

from __future__ import annotations

from dataclasses import replace

from probes.core.frame import Filters, Frame, Host
from probes.core.sample import Counts
from probes.execs.sample import ExecEvent, ExecSample
from probes.latency.sample import LatencySample, Spent
from probes.pmc.sample import PmcSample
from probes.syscalls.sample import SyscallSample
from tests.pilot.fake import FakeSource

EVIL = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "<!--<script>",
    '"><img src=x onerror="window.pwned=1">',
    "'><svg/onload=window.pwned=1>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;&#x22;",
    "\x1b]0;owned\x07\x00\r\n",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "\udcff\udc80\ud800",
    "]]>\u2028\u2029",
    "javascript:window.pwned=1",
    "http://evil.example/x.png",
)


def hostile_frames(ticks: int = 5) -> list[Frame]:
    """Frames of a made-up machine with hostile names everywhere."""
    source = FakeSource()
    source.latency = True
    return [_spoiled(source.frame(), at) for at in range(ticks)]


def _spoiled(frame: Frame, at: int) -> Frame:
    evil = list(EVIL)
    samples = dict(frame.samples)
    calls = samples["syscalls"]
    assert isinstance(calls, SyscallSample)
    comms = {100 + n: text for n, text in enumerate(evil)}
    matrix = {(100 + n, text): Counts(10 * at, at) for n, text in enumerate(evil)}
    more = {text: Counts(10 * at, at) for text in evil}
    samples["syscalls"] = replace(
        calls,
        calls={**calls.calls, **more},
        errnos={**calls.errnos, **{(text, text): at for text in evil}},
        matrix={**calls.matrix, **matrix},
        comms={**calls.comms, **comms},
        notes=tuple(evil),
    )
    execs = samples["execs"]
    assert isinstance(execs, ExecSample)
    events = [
        ExecEvent(
            time=frame.time, pid=500 + n, ppid=400 + n, uid=0, comm=text, parent=text,
            args=(text, *evil), truncated=False, ret=0, cgroup=f"/{text}", path=f"/{text}",
        )
        for n, text in enumerate(evil)
    ]  # fmt: skip
    samples["execs"] = replace(execs, events=(*execs.events, *events))
    latency = samples["latency"]
    assert isinstance(latency, LatencySample)
    (spec, target), *_ = latency.targets.items()
    targets = {text: replace(target, spec=text, mechanism=text) for text in evil[:4]}
    broken = replace(target, spec="broken", state="failed", why=evil[1], fix=evil[3])
    samples["latency"] = replace(
        latency,
        targets={**latency.targets, **targets, "broken": broken},
        comms={**latency.comms, **comms},
        processes={**latency.processes, **{(spec, pid): Spent(at, at) for pid in comms}},
        texts={(spec, text): Spent(at, at) for text in evil},
    )
    pmc = samples["pmc"]
    assert isinstance(pmc, PmcSample)
    names = {pid: evil[n % len(evil)] for n, pid in enumerate(pmc.comms)}
    samples["pmc"] = replace(pmc, comms=names, reason=evil[1])
    host = Host(evil[3], evil[1], evil[0], 2)
    return replace(frame, host=host, filters=Filters(comm=evil[1], cgroup=evil[3]), samples=samples)
