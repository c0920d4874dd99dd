# SPDX-License-Identifier: Apache-2.0
"""The control page of a probe: one mapped value that its programs read at every event.

The layout is `struct control` of include/probetop.h. Changing a filter is a memory write.
"""

from __future__ import annotations

import struct
import sys
import time
from contextlib import suppress

from probes.bpf.layouts import CONTROL
from probes.bpf.maps import MappedArray, put_word
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.frame import Filters
from probes.core.safe_text import raw_of
from probes.host.cgroups import cgroup_id

SIZE = CONTROL.size
_ENABLED, _EPOCH, _FILTERS = map(CONTROL.at, ("enabled", "epoch", "filters"))
_SAMPLE, _WAKE, _SINCE = map(CONTROL.at, ("sample", "wake", "since"))
_STARTED, _OWN, _ROUND = map(CONTROL.at, ("started", "reader", "round"))
_WORDS = (*range(CONTROL.at("cgroup"), _SAMPLE, 8), _STARTED)
PID, COMM, UID, CGROUP, STARTED, OTHERS = 1, 2, 4, 8, 16, 32

FILTER_OFFSETS = {
    "OFF_CGROUPS": "task_struct.cgroups",
    "OFF_DFL_CGRP": "css_set.dfl_cgrp",
    "OFF_CGROUP_LEVEL": "cgroup.level",
    "OFF_ANCESTOR_IDS": "cgroup.ancestor_ids?",
    "OFF_ANCESTORS": "cgroup.ancestors?",
    "OFF_CGROUP_KN": "cgroup.kn",
    "OFF_KN_ID": "kernfs_node.id",
    "OFF_GROUP_LEADER": "task_struct.group_leader",
    "OFF_START_BOOTTIME": "task_struct.start_boottime",
    "OFF_EXEC_ID": "task_struct.self_exec_id",
    "OFF_COMM": "task_struct.comm",
    "OFF_CRED": "task_struct.cred",
    "OFF_UID": "cred.uid",
    "OFF_EUID": "cred.euid",
    "OFF_TGID": "task_struct.tgid",
    "OFF_THREAD_PID": "task_struct.thread_pid",
    "OFF_PID_LEVEL": "pid.level",
    "OFF_PID_NUMBERS": "pid.numbers",
    "OFF_UPID_NR": "upid.nr",
    "OFF_UPID_NS": "upid.ns",
    "OFF_PIDNS_NUMBER": "pid_namespace.ns.inum",
}
"""What include/probetop.h needs to know of processes and cgroups, to filter and to name them.

Linux 6.1 made ancestors pointers."""


def filter_defines() -> dict[str, int]:
    """What the filters need to know of this process: in which pid namespace it sees pids."""
    number = kernel.pid_namespace()
    return {} if number in (None, kernel.INITIAL_PID_NAMESPACE) else {"PT_PIDNS": number or 0}


FILTER_HELPERS = {"PT_TASK_BTF": "BPF_FUNC_get_current_task_btf"}
"""Helpers that make filters cheaper where the kernel has them, from Linux 5.11 on."""


_own: list[int] = []


def leave_out(reader: int, broker: int) -> None:
    """Have no program count these two processes, which read and load what is counted.

    It is for all control pages that this process makes from then on. In a pid namespace of our
    own the kernel's numbers of them are not known, and nothing is left out.
    """
    _own[:] = [reader, broker] if kernel.in_initial_pid_namespace() else []


class Control:
    """Writes the control page; takes the map's descriptor."""

    def __init__(self, fd: int) -> None:
        self.array = MappedArray(fd, SIZE, 1, writable=True)
        self.epoch = self.round = 0
        if _own:
            self._put(_OWN, int.from_bytes(struct.pack("=II", *_own), sys.byteorder))
        self.set_sample(1)

    def enable(self, on: bool) -> None:
        """Let the programs count, or return at once."""
        self._put(_ENABLED, int(on))

    def next_epoch(self) -> int:
        """Begin a new epoch; returns the one that just ended."""
        ended = self.epoch
        self.epoch += 1
        self._put(_EPOCH, self.epoch)
        return ended

    def next_round(self) -> int:
        """Begin a new round, before and after histograms are read; returns it."""
        self.round += 1
        self._put(_ROUND, self.round)
        return self.round

    def set_sample(self, every: int) -> None:
        """Time one call in `every`."""
        self._put(_SINCE, time.monotonic_ns())
        self._put(_SAMPLE, every)

    def set_wake(self, size: int) -> None:
        """Wake the reader each time a CPU has written this many bytes to a ring buffer."""
        self._put(_WAKE, size)

    def set_filters(self, filters: Filters, started: int | None = None) -> None:
        """Count only what passes; a cgroup that is none, or has gone, contains nothing.

        `started` is when the process of the filter started, in ns since boot: another one that
        has its pid does not pass. None is for a process that is known by its pid alone.
        """
        bits = OTHERS if _own else 0
        cgroup, level = 0, 0
        if filters.cgroup is not None:
            bits |= CGROUP
            # No cgroup has the id 0: not to filter would take everything for what is in it.
            with suppress(ProbeError, OSError, ValueError):
                cgroup, level = cgroup_id(filters.cgroup)
        bits |= PID * (filters.pid is not None)
        bits |= STARTED * (filters.pid is not None and started is not None)
        bits |= UID * (filters.uid is not None)
        bits |= COMM * (filters.comm is not None)
        # The kernel keeps 15 bytes of a name and a zero.
        comm = raw_of(filters.comm or "")[:15]
        packed = struct.pack("=QQII16s", cgroup, level, filters.pid or 0, filters.uid or 0, comm)
        words = dict(zip(_WORDS, (*struct.unpack("=5Q", packed), started or 0), strict=True))
        changed = {at: word for at, word in words.items() if self._get(at) != word}
        # Where a cgroup comes or goes, its id of 0 lets nothing pass while the others change.
        shut = bits & CGROUP and not (cgroup and self._get(_WORDS[0]))
        if self._get(_FILTERS) != bits or (len(changed) > 1 and not shut):
            # No filter while several words change: a half-written one would hide events.
            self._put(_FILTERS, 0)
        for at in sorted(changed, reverse=bool(cgroup)):
            self._put(at, changed[at])
        self._put(_SINCE, time.monotonic_ns())
        self._put(_FILTERS, bits)

    def close(self) -> None:
        """Unmap."""
        self.array.close()

    def _get(self, offset: int) -> int:
        return int.from_bytes(self.array.memory[offset : offset + 8], sys.byteorder)

    def _put(self, offset: int, value: int) -> None:
        put_word(self.array.memory, offset, value)
