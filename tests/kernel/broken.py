# SPDX-License-Identifier: Apache-2.0
"""Exec probes that go wrong in the loader, each in its own way."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import replace
from pathlib import Path

from probes.bpf.plan import Attach, Params, Plan
from probes.core.errors import ProbeError
from probes.execs.probe import ExecProbe

MENDED = Path("/tmp")
"""A file of this name ends `Sleeps`'s illness; tests point it elsewhere."""


class Sleeps(ExecProbe):
    """Hangs until it is mended."""

    @staticmethod
    def plan(params: Params) -> Plan:
        while not MENDED.is_file():
            time.sleep(0.05)
        return ExecProbe.plan(params)


class Raises(ExecProbe):
    """Has a bug of its own."""

    @staticmethod
    def plan(params: Params) -> Plan:
        raise RuntimeError("a bug in plan")


class Refuses(ExecProbe):
    """Says what is wrong, as probes should."""

    @staticmethod
    def plan(params: Params) -> Plan:
        raise ProbeError("this cannot be", "do that")


class Crashes(ExecProbe):
    """Dies as a compiler may."""

    @staticmethod
    def plan(params: Params) -> Plan:
        os.write(2, b"compiler: about to crash\n")
        ctypes.string_at(0)
        raise AssertionError


class Prints(ExecProbe):
    """Libraries print to both streams, and then it fails."""

    @staticmethod
    def plan(params: Params) -> Plan:
        os.write(1, b"from a library\n")
        os.write(2, b"\x1b[31mlibbpf: bad \xff thing\n" + b"x" * 100_000 + b"\nthe last line\n")
        raise ProbeError("it printed", "read the log")


class DoesNotCompile(ExecProbe):
    """C that is none."""

    @staticmethod
    def plan(params: Params) -> Plan:
        return replace(ExecProbe.plan(params), defines={"PT_CPUS": 1, "ARGS": 7})


class LacksOffset(ExecProbe):
    """A kernel without a field."""

    @staticmethod
    def plan(params: Params) -> Plan:
        plan = ExecProbe.plan(params)
        return replace(plan, offsets={**plan.offsets, "OFF_MM": "task_struct.no_such_member"})


NOWHERE = Attach(kind="raw_tracepoint", function="on_exec", target="nowhere")


class LacksTracepoint(ExecProbe):
    """A kernel without a tracepoint that is needed."""

    @staticmethod
    def plan(params: Params) -> Plan:
        plan = ExecProbe.plan(params)
        return replace(plan, attach=[*plan.attach, NOWHERE])


class LacksOptional(ExecProbe):
    """A kernel without two of the tracepoints that it can do without."""

    @staticmethod
    def plan(params: Params) -> Plan:
        plan = ExecProbe.plan(params)
        attach = [
            replace(a, target=f"{a.target}_gone") if a.target.endswith("execveat") else a
            for a in plan.attach
        ]
        return replace(plan, attach=attach)


class LacksMap(ExecProbe):
    """A map that the source does not have."""

    @staticmethod
    def plan(params: Params) -> Plan:
        plan = ExecProbe.plan(params)
        return replace(plan, maps=[*plan.maps, "no_such_map"])
