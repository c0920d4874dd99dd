# SPDX-License-Identifier: Apache-2.0
"""Who gets a series of its own: the most active names in the most active control groups.

Every count is given to one series when it happens and never moved, so that each only rises and
all of them together are the whole. A name gets a series when it is first seen while there is
room; else it counts in its control group's `other`, until it is more than twice as active as one
that has a series. A series that ends (idle, or displaced) is shown no more, and what its name does
from then on is `other`'s; what it had stays known as `retired`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from probes.core.process_keys import pid_of
from tui.agent.metrics.families import OTHER, label

CALLS, ERRORS, CPU, CYCLES, INSTRUCTIONS, ESTIMATED_CALLS, ESTIMATED_ERRORS = range(7)
ESTIMATED_CPU, ESTIMATED_CYCLES, ESTIMATED_INSTRUCTIONS = range(7, 10)
"""What a Tally holds: counts, nanoseconds on a CPU, and estimates from bursts."""
Tally = list[float]

RANK_SECONDS = 10.0
IDLE_SECONDS = 900.0
"""A name that does nothing for so long loses its series."""
DECAY = 0.85
"""What is left of a name's activity after each ranking: half of it after 43 seconds."""
DISPLACE = 2.0
MOST_OWNERS = 20_000
MOST_READS = 256
"""Most processes whose control group is looked up in one tick; the others wait."""
REFRESHED = 32
"""How many are looked up again in each tick, in turn: processes are moved."""


def new_tally() -> Tally:
    """Nothing counted yet."""
    return [0] * 10


class Owner:
    """Processes of one name in one control group; `tally` is where they count now."""

    __slots__ = ("cgroup", "comm", "raw", "recent", "score", "seen", "tally")

    def __init__(self, raw: str, cgroup: str, comm: str, now: float) -> None:
        self.raw, self.cgroup, self.comm = raw, cgroup, comm
        self.tally = new_tally()
        self.recent = self.score = 0.0
        self.seen = now


class Group:
    """A control group with series: of its own names, and `rest` for all others in it."""

    __slots__ = ("own", "raw", "rest")

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self.own: dict[str, Tally] = {}
        self.rest = new_tally()


class Crowd:
    """Processes, by their numbers (see `probes.core.process_keys`), and the series that they count
    in.

    At most `top` names in each of `cgroups` control groups have their own.
    """

    def __init__(self, top: int, cgroups: int, read: Callable[[int], str | None]) -> None:
        self.top, self.cgroups = top, cgroups
        self._read = read
        self.pids: dict[int, Owner] = {}
        self.groups: dict[str, Group] = {}
        self.rest = new_tally()
        self.retired = new_tally()
        self._owners: dict[tuple[str, str], Owner] = {}
        self._unread: dict[int, str] = {}
        self._told: dict[int, str] = {}
        self._turn: deque[int] = deque()
        self._reads = MOST_READS
        self._now = 0.0
        self._next_rank = 0.0

    def begin(self, now: float) -> None:
        """A tick begins; `now` are monotonic seconds."""
        if not self._next_rank or now < self._now:
            self._next_rank = now + RANK_SECONDS
        self._now, self._reads = now, MOST_READS
        waiting, self._unread = self._unread, {}
        for pid, comm in waiting.items():
            self.name(pid, comm)
        self._refresh()

    def tell(self, pid: int, cgroup: str) -> None:
        """The control group that a process was in when it executed a program."""
        self._told[pid] = cgroup

    def name(self, pid: int, comm: str) -> Owner:
        """A process has this name, from now on."""
        raw = self._cgroup(pid, comm)
        if pid not in self.pids:
            self._turn.append(pid)
        owner = self.pids[pid] = self._owner(raw, comm)
        return owner

    def owner(self, pid: int, comm: str) -> Owner:
        """Where a process counts; `comm` is its name if it has none yet."""
        known = self.pids.get(pid)
        return self.name(pid, comm) if known is None else known

    def keep(self, alive: Callable[[int], bool]) -> None:
        """Forget the processes that are not alive."""
        for pid in [pid for pid in self.pids if not alive(pid)]:
            del self.pids[pid]
        self._turn = deque([pid for pid in dict.fromkeys(self._turn) if pid in self.pids])
        self._unread = {pid: comm for pid, comm in self._unread.items() if pid in self.pids}

    def end(self) -> bool:
        """The tick ends; True if it is time to `keep` and `rank`."""
        self._told.clear()
        if self._now < self._next_rank:
            return False
        self._next_rank = self._now + RANK_SECONDS
        return True

    def rank(self) -> None:
        """Give the series to those who are the most active now."""
        referred = set(map(id, self.pids.values()))
        for key, owner in list(self._owners.items()):
            if owner.recent:
                owner.seen = self._now
            owner.score = owner.score * DECAY + owner.recent
            owner.recent = 0.0
            if self._idle(owner):
                # However busy it was, it takes nobody's place.
                owner.score = 0.0
                if id(owner) not in referred:
                    del self._owners[key]
        members: dict[str, list[Owner]] = {}
        for owner in self._owners.values():
            members.setdefault(owner.cgroup, []).append(owner)
        self._rank_groups(members)
        for cgroup, group in self.groups.items():
            self._rank_names(group, members.get(cgroup, []))

    def tallies(self) -> Iterator[tuple[str, str, Tally]]:
        """Every series: control group (as the kernel names it), name, counts."""
        for group in self.groups.values():
            for comm, tally in group.own.items():
                yield group.raw, comm, tally
            if any(group.rest):
                yield group.raw, OTHER, group.rest
        if any(self.rest):
            yield OTHER, OTHER, self.rest

    def _refresh(self) -> None:
        """See whether some processes are in another control group by now."""
        for _ in range(min(REFRESHED, self._reads, len(self._turn))):
            pid = self._turn.popleft()
            owner = self.pids.get(pid)
            if owner is None:
                continue
            raw = self._read(pid_of(pid))
            if raw is not None and raw != owner.raw:
                self.pids[pid] = self._owner(raw, owner.comm)
            self._turn.append(pid)

    def _cgroup(self, number: int, comm: str) -> str:
        """A process's control group: empty while it is not known, the last one when it has gone."""
        known = self.pids.get(number)
        pid = pid_of(number)
        told = self._told.get(pid, "" if known is None else known.raw)
        if pid in self._told and told not in ("", "/"):
            return told
        if not self._reads:
            self._unread[number] = comm
            return told
        self._reads -= 1
        return self._read(pid) or told

    def _owner(self, raw: str, comm: str) -> Owner:
        key = (label(raw), label(comm))
        known = self._owners.get(key)
        if known is not None:
            return known
        owner = Owner(raw, *key, self._now)
        if len(self._owners) >= MOST_OWNERS:
            # Nobody would move it when a series ends.
            owner.tally = self.rest
            return owner
        self._owners[key] = owner
        group = self.groups.get(owner.cgroup)
        if group is None and len(self.groups) < self.cgroups and owner.cgroup != OTHER:
            group = self.groups[owner.cgroup] = Group(raw)
        self._place(owner, group)
        return owner

    def _place(self, owner: Owner, group: Group | None) -> None:
        """Let an owner count where it has its own series, else where there is room for one."""
        if group is None:
            owner.tally = self.rest
        elif owner.comm in group.own:
            owner.tally = group.own[owner.comm]
        elif len(group.own) < self.top and owner.comm != OTHER:
            owner.tally = group.own[owner.comm] = new_tally()
        else:
            owner.tally = group.rest

    def _idle(self, owner: Owner) -> bool:
        return self._now - owner.seen > IDLE_SECONDS

    def _rank_groups(self, members: dict[str, list[Owner]]) -> None:
        scores = {
            cgroup: sum([owner.score for owner in owners]) for cgroup, owners in members.items()
        }
        for cgroup in list(self.groups):
            if all(map(self._idle, members.get(cgroup, []))):
                self._end_group(cgroup, members)
        waiting = sorted(
            [cgroup for cgroup in scores if cgroup not in self.groups and cgroup != OTHER],
            key=lambda cgroup: -scores[cgroup],
        )
        held = sorted(self.groups, key=lambda cgroup: scores.get(cgroup, 0.0))
        for cgroup, displaced in _winners(waiting, held, scores, self.cgroups):
            if displaced is not None:
                self._end_group(displaced, members)
            group = self.groups[cgroup] = Group(members[cgroup][0].raw)
            for owner in members[cgroup]:
                owner.tally = group.rest

    def _rank_names(self, group: Group, owners: list[Owner]) -> None:
        by_name = {owner.comm: owner for owner in owners if owner.comm != OTHER}
        for comm in list(group.own):
            if comm not in by_name or self._idle(by_name[comm]):
                self._end_name(group, comm, by_name.get(comm))
        scores = {comm: owner.score for comm, owner in by_name.items()}
        waiting = sorted(
            [comm for comm in scores if comm not in group.own], key=lambda comm: -scores[comm]
        )
        held = sorted(group.own, key=lambda comm: scores[comm])
        for comm, displaced in _winners(waiting, held, scores, self.top):
            if displaced is not None:
                self._end_name(group, displaced, by_name[displaced])
            self._place(by_name[comm], group)

    def _end_group(self, cgroup: str, members: dict[str, list[Owner]]) -> None:
        group = self.groups.pop(cgroup)
        self._retire([group.rest, *group.own.values()])
        for owner in members.get(cgroup, []):
            owner.tally = self.rest

    def _end_name(self, group: Group, comm: str, owner: Owner | None) -> None:
        self._retire([group.own.pop(comm)])
        if owner is not None:
            owner.tally = group.rest

    def _retire(self, tallies: Iterable[Tally]) -> None:
        for tally in tallies:
            self.retired = [a + b for a, b in zip(self.retired, tally, strict=True)]


def _winners(
    waiting: list[str], held: list[str], scores: dict[str, float], room: int
) -> list[tuple[str, str | None]]:
    """Of those that wait (most active first), who gets a place, and who loses it for that.

    A free place, or that of the least active of those that hold one (least active first), if
    that one is clearly less active.
    """
    free = max(0, room - len(held))
    found: list[tuple[str, str | None]] = [(name, None) for name in waiting[:free] if scores[name]]
    for name, loser in zip(waiting[free:], held, strict=False):
        if scores[name] <= DISPLACE * scores.get(loser, 0.0):
            break
        found.append((name, loser))
    return found
