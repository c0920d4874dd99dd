# SPDX-License-Identifier: Apache-2.0
"""Attaches loaded programs once more, by the recipes that the loader made when it attached them."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from probes.bpf import bpf_syscall
from probes.bpf.attach import probe_event
from probes.core.errors import ProbeError
from probes.host import memory_locks
from probes.host.open_file import OpenFile, version_of
from probes.ipc.messages import Recipe

MULTI = "_multi"


class ChangedError(ProbeError):
    """A file was written to since it was read: nothing may be attached to it any more."""


def check(recipes: Sequence[Recipe], held: Sequence[int]) -> None:
    """Raises ProbeError if attaching could harm now: see `probes.host.memory_locks`, and
    ChangedError.

    Raises OSError.
    """
    for number in sorted({one.file for one in recipes if one.places}):
        file = OpenFile(os.dup(held[number]), "")
        memory_locks.check(file)
        file.close()
        # Processes may take seconds to answer: the file is to be what it was after that.
        version = version_of(os.fstat(held[number]))
        if {version} != {one.version for one in recipes if one.places and one.file == number}:
            raise ChangedError("the file was changed since it was read", "")


def attach(recipe: Recipe, programs: Sequence[int], held: Sequence[int], links: list[int]) -> None:
    """Attach one program, and put what keeps it attached into `links`; raises OSError."""
    if recipe.program >= len(programs):
        raise OSError(errno.EINVAL, "there is no such program")
    program, kind = programs[recipe.program], recipe.kind
    if kind == "raw_tracepoint":
        links.append(bpf_syscall.raw_tracepoint_open(program, recipe.target))
    elif kind in ("btf_tracepoint", "fentry", "fexit"):
        links.append(bpf_syscall.raw_tracepoint_open(program, None))
    elif kind == "tracepoint":
        event = bpf_syscall.perf_event_open(bpf_syscall.PERF_TRACEPOINT, recipe.config, cpu=0)
        _by_event(event, program, links)
    elif kind in ("kprobe", "kretprobe"):
        _by_event(probe_event(kind, recipe.target), program, links)
    elif kind.endswith(MULTI):
        offsets, counters = [one[0] for one in recipe.places], [one[1] for one in recipe.places]
        path, returns = f"/proc/self/fd/{held[recipe.file]}", kind.startswith("uretprobe")
        links.append(bpf_syscall.uprobe_multi_link(program, path, offsets, counters, returns))
    else:
        for offset, counter in recipe.places:
            path = f"/proc/self/fd/{held[recipe.file]}"
            _by_event(probe_event(kind, path, offset, counter), program, links)


def _by_event(event: int, program: int, links: list[int]) -> None:
    links.append(event)
    bpf_syscall.perf_set_bpf(event, program)
    bpf_syscall.perf_enable(event)
