# SPDX-License-Identifier: Apache-2.0
"""The live Source: one thread that polls the probes of this machine and makes Frames.

`probes.live.start` makes it. The probes are memory here: what is attached is the broker's.
Everything about them happens in the one thread; commands reach it through a queue, so that callers
never wait and no lock is needed.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from probes.bpf.plan import Loaded
from probes.broker.client import BrokerLink
from probes.broker.questions import Questions
from probes.budget.meter import CallRate
from probes.budget.policy import DETACHED, SAMPLING
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.frame import Filters, Frame, Host
from probes.core.sample import Sample
from probes.host.filter_watch import FilterWatch
from probes.ipc import packets
from probes.ipc.messages import Answer, BurstReport
from probes.live.budget_controller import LIFTED, Governed, Hands
from probes.live.names import Naming
from probes.live.probe_state import Slot, Standing
from probes.live.run_times import RunTimes
from probes.probe import Probe
from probes.report.windows import continues
from probes.source import Found


class LiveSource:
    """Frames of this machine. See `probes.source.Source` for the commands."""

    live = True

    def __init__(
        self,
        link: BrokerLink,
        probes: Mapping[str, Probe],
        *,
        interval: float,
        cost_always: bool = False,
        budget: float = 0.0,
        draws: bool = False,
        log: Path | int | None = None,
    ) -> None:
        uname = os.uname()
        self.title = uname.nodename
        self.host = Host(
            uname.nodename, uname.release, kernel.arch() or uname.machine, os.cpu_count() or 1
        )
        self._link = link
        self._slots = {name: Slot(probe) for name, probe in probes.items()}
        for probe in probes.values():
            probe.meter.detach = self._link.detach
            probe.meter.attach_in = self._link.attach_in
        self._interval = interval
        self.filter_watch = self._watched = FilterWatch(Filters())
        self._counted = Filters()
        self._last: dict[str, Sample] = {}
        self._framed = 0.0
        self._hurried = False
        self._settled = False
        self._log = log
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(link, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._waiting_on: set[int] = set()
        self._run_times = RunTimes(self._link, cost_always, self._running)
        self._calls = CallRate()
        hands = Hands(
            reload=lambda name: self._request(name, self._slots[name]),
            measure=lambda name: self._measure_soon(self._slots[name]),
            hold=self._hold,
            release=lambda name: self._switch(name, self._slots[name], True),
            busiest=lambda name: self._slots[name].busiest(time.monotonic()),
        )
        self.lifts = budget > 0
        self._governed = Governed(budget, self.host.cpus, self._slots, hands, draws)
        self.naming = Naming()
        self._questions = Questions(link)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._on_frame: Callable[[Frame], None] = lambda frame: None
        self._on_end: Callable[[str], None] = lambda reason: None

    # Commands: any thread may call these.

    def start(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        """Begin to poll."""
        self._on_frame, self._on_end = on_frame, on_end
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Carry out the commands given so far, before there is a thread for it."""
        while self._commands:
            self._commands.popleft()()

    def stop(self) -> None:
        """End the thread and let go of every descriptor."""
        self._stopping.set()
        self._poke()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2)

    def toggle(self, probe: str, on: bool) -> None:
        """Attach or detach a probe; raises ProbeError for an unknown one."""
        slot = self._slot(probe)

        def switch() -> None:
            self._governed.forget(probe)
            if on and by_hand:
                self._governed.insist(probe)
            self._switch(probe, slot, on)

        # What is on from the start nobody has insisted on.
        by_hand = self._thread is not None
        self._command(switch)

    def set_option(self, probe: str, option: str, value: Any) -> None:
        """Change a probe's option; raises ProbeError for an unknown one."""
        slot = self._slot(probe)
        if option not in slot.probe.options:
            raise ProbeError(f"{probe} has no option {option}", _choices(slot.probe.options))
        slot.probe.check_option(option, value)

        def change() -> None:
            self._governed.forget(probe)
            try:
                changed = slot.probe.set_option(option, value)
            except ProbeError:  # it was right when it was asked for, and is not any more
                return
            if slot.held:
                # Who changes what it does wants it to run.
                self._switch(probe, slot, True)
            elif changed and slot.wanted:
                self._request(probe, slot)
            elif slot.runs:
                self._measure_soon(slot)
            self._watch()

        self._command(change)

    def set_filters(self, filters: Filters) -> None:
        """Change what the kernel side counts.

        Raises ProbeError for a process or a cgroup that is not there.
        """
        self.count(FilterWatch(filters))

    def count(self, watch: FilterWatch) -> None:
        """Count what filters take that are watched already; what has gone since stays away."""
        self.filter_watch = watch

        def change() -> None:
            self._watched = watch
            watch.check()
            self._filter()
            self._watch()

        self._command(change)

    def _filter(self) -> None:
        filters = self._watched.filters
        for slot in self._slots.values():
            # A cgroup that has gone since then is the empty set already.
            with suppress(ProbeError, OSError):
                slot.probe.set_filters(filters, self._watched.started)
            slot.probe.meter.filtered = filters != Filters()
            if slot.runs:
                self._measure_soon(slot)

    def _check_filters(self) -> None:
        if self._watched.check():
            self._filter()
            self._watch()

    def lift_budget(self, seconds: float = LIFTED) -> None:
        """Give up nothing for so many seconds, 0 for none: the budget holds again then."""
        self._command(lambda: self._governed.lift(seconds))

    def one_off(self, seconds: float) -> None:
        """So many seconds of a CPU went into something done once: that is no running cost."""
        self._command(lambda: self._governed.one_off(seconds))

    def set_interval(self, seconds: float) -> None:
        """Change the time between Frames, in seconds."""
        self._command(lambda: setattr(self, "_interval", seconds))

    def hurry(self) -> None:
        """Make the next Frame now, without waiting for the interval to pass."""
        self._command(lambda: setattr(self, "_hurried", True))

    def stand(self, on_standing: Callable[[Mapping[str, Standing]], None]) -> None:
        """Ask where the probes stand once all commands given so far are carried out."""
        slots = self._slots
        self._command(lambda: on_standing({name: slots[name].standing() for name in slots}))

    def help(self, name: str, on_answer: Callable[[dict[str, Any]], None]) -> None:
        """Have a helper work, see `probes.broker.jobs`.

        The answer has "ok", and "result" or "why" and "fix"; it comes from another thread.
        """
        self._command(lambda: self._questions.help(name, on_answer))

    def doctor(self, on_report: Callable[[dict[str, Any]], None]) -> None:
        """Ask for what `probetop doctor --json` prints, as `help` answers it."""
        self.help("doctor", on_report)

    def search(self, query: str, on_found: Callable[[Sequence[Found]], None]) -> None:
        """Ask what can be traced; only the newest question is sure to be answered."""
        self._command(lambda: self._questions.search(query, on_found))

    def _slot(self, name: str) -> Slot:
        try:
            return self._slots[name]
        except KeyError:
            raise ProbeError(f"there is no probe {name}", _choices(self._slots)) from None

    def _command(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._poke()

    def _poke(self) -> None:
        with suppress(OSError):  # the descriptor may be closed when we are stopping
            os.eventfd_write(self._wake, 1)

    # The poller's thread.

    def _run(self) -> None:
        reason: str | None = None
        try:
            reason = self._poll_until_stopped()
        except Exception as error:  # the dashboard must say so instead of standing still
            reason = f"polling failed: {error!r}"
        finally:
            self._close()
        if reason is not None and not self._stopping.is_set():
            self._on_end(reason)

    def _poll_until_stopped(self) -> str | None:
        due = time.monotonic() + min(self._interval, 0.25)
        while not self._stopping.is_set():
            now = time.monotonic()
            if now >= due or self._hurried:
                self._hurried = False
                self._on_frame(self._frame(now))
                self._settled |= self._all_settled()
                self._run_times.framed()
                due += self._interval
                if due < now:  # a stopped or overloaded process does not catch up
                    due = now + self._interval
            self._governed.tick(now, self._framed)
            self._run_times.measure(now)
            self.naming.ask(self._link)
            due = min(due, now + self._interval)
            lead = self._run_times.lead(due, self._interval, now)
            wait = min(due - lead - time.monotonic(), self._governed.wait(now))
            look = self._watched.wait()
            if look is not None:
                self._check_filters()
                self._watch()
                wait = min(wait, look)
            for key, _ in self._selector.select(max(0.0, wait)):
                if key.fileobj is self._link:
                    if not self._broker_speaks():
                        return f"{self._link.broken}; no probe is attached any more"
                elif key.fileobj == self._wake:
                    os.eventfd_read(self._wake)
                else:
                    self._drain(key.fd)
            while self._commands:
                self._carry_out(self._commands.popleft())
        return None

    def _carry_out(self, command: Callable[[], None]) -> None:
        try:
            command()
        except Exception as error:  # whoever asked for it, polling goes on
            self._write_log(f"a command failed: {error!r}")

    def _close(self) -> None:
        for slot in self._slots.values():
            with suppress(OSError):
                slot.probe.release()
        self._selector.close()
        self._link.close()
        os.close(self._wake)

    def _frame(self, now: float) -> Frame:
        self._check_filters()
        calls = self._slots.get("syscalls")
        counting = calls.probe.meter if calls and calls.runs else None
        self._calls.tell([slot.probe.meter for slot in self._slots.values()], counting, now)
        samples = {
            name: self._dated(name, self._sample(name, slot, now), now)
            for name, slot in self._slots.items()
        }
        filters = self._counted = self._watched.filters
        self._framed = now
        return Frame(
            time=time.time(),
            mono=now,
            interval=self._interval,
            host=self.host,
            load=os.getloadavg()[0],
            filters=filters,
            notices=self._watched.notices,
            samples=samples,
            budget=self._governed.stands(),
        )

    def _dated(self, name: str, sample: Sample, now: float) -> Sample:
        """The Sample, with the moment since which it may be compared."""
        last = self._last.get(name)
        goes_on = self._watched.filters == self._counted and continues(last, sample)
        since = last.since if goes_on and last is not None else now
        on, slot = sample.state == "on", self._slots[name]
        given_up = sample.given_up
        if slot.runs:
            given_up = slot.probe.given_up()
        elif slot.held:
            given_up = DETACHED.words
        why = self._governed.reason(name)
        if given_up is not None and SAMPLING in given_up and why is not None:
            given_up = f"{given_up}: {why}"
        kept_on = self._governed.kept(name) if slot.runs else None
        dated = replace(sample, since=since if on else None, given_up=given_up, kept_on=kept_on)
        self._last[name] = dated
        slot.frame(dated, now)
        return dated

    def _sample(self, name: str, slot: Slot, now: float) -> Sample:
        final, slot.final = slot.final, None
        if final is not None:
            return final
        if slot.state == "on":
            try:
                # Reading one probe takes time that the next one goes on counting in.
                at = time.monotonic()
                sample = self.naming.named(slot.probe.read(now))
                sample = replace(sample, counted=slot.counted(sample.generation, at))
                if slot.probe.meter.outdated and slot.pending is None:
                    self._request(name, slot)
                return sample
            except (ProbeError, OSError, ValueError) as error:
                self._fail(slot, f"reading {name} failed ({error})", "switch it off and on")
        return slot.probe.sample_type(state=slot.state, why=slot.why, fix=slot.fix)

    def _drain(self, fd: int) -> None:
        if fd in self._watched.wait_fds():
            self._check_filters()
            self._watch()
        for slot in self._slots.values():
            if fd in slot.probe.wait_fds():
                slot.probe.drain()

    # Switching probes.

    def _switch(self, name: str, slot: Slot, on: bool) -> None:
        slot.wanted, slot.held = on, False
        if on and slot.state != "on":
            slot.state, slot.why, slot.fix = "starting", None, None
            self._request(name, slot)
        elif not on:
            self._read_finally(name, slot)
            slot.state, slot.why, slot.fix, slot.pending = "off", None, None, None
            slot.generation = None
            slot.probe.release()
            self._watch()

    def _read_finally(self, name: str, slot: Slot) -> None:
        """Keep what a probe counted since the last Frame for the next one; it is switched off."""
        if not slot.runs:
            return
        now = time.monotonic()
        sample = self._sample(name, slot, now)
        if sample.state == "on":
            slot.final = replace(sample, given_up=slot.probe.given_up())
            # An early Frame shows soon that it is off, but rates of a moment say little.
            self._hurried |= now - self._framed > self._interval / 2

    def _request(self, name: str, slot: Slot) -> None:
        params = dict(slot.probe.params())
        slot.pending = self._link.tell("load", probe=name, params=params)

    def _broker_speaks(self) -> bool:
        """Take in an answer; False at the end. Raises MessageError for one that is none."""
        received = self._link.receive()
        if received is not None:
            self._answered(*received)
        return received is not None

    def _answered(self, answer: Answer, fds: Sequence[int]) -> None:
        """Give an answer to who asked; takes the descriptors."""
        slot = next((s for s in self._slots.values() if s.pending == answer.id), None)
        self._write_log(answer.log)
        if slot is not None and answer.id is not None:
            slot.pending = None
            self._loaded(slot, answer, fds)
            self._settle()
            return
        packets.close_all(fds)
        if answer.burst is not None:
            self._burst(answer.burst)
        elif answer.unit:  # switched off, or asked for anew, meanwhile
            self._link.detach(answer.unit, None)
        elif answer.id is None:
            self._link.broken = answer.why
        elif not self._run_times.answered(answer) and not self.naming.answered(answer):
            self._questions.answered(answer)

    def _burst(self, report: BurstReport) -> None:
        """Take in what became of a unit that is attached in bursts, and let it go on."""
        for name, slot in self._slots.items():
            if not slot.probe.meter.owns(report.unit):
                continue
            if report.kind == "failed" and report.group is None:
                self._hold(name, "it cannot be attached in bursts here", "")
                return
            slot.probe.burst(report)
            self._link.taken(report)

    def _settle(self) -> None:
        """Make a Frame as soon as all probes run or have failed: the first interval begins then."""
        if self._settled:
            return
        for name, slot in self._slots.items():
            if slot.runs and slot.probe.meter.outdated and slot.pending is None:
                self._request(name, slot)
        if self._all_settled():
            self._settled = self._hurried = True

    def _all_settled(self) -> bool:
        return all(slot.standing().settled for slot in self._slots.values())

    def _loaded(self, slot: Slot, answer: Answer, fds: Sequence[int]) -> None:
        """A probe was loaded, or could not be."""
        if not answer.ok:
            packets.close_all(fds)
            if not slot.probe.refuse(answer.why, answer.fix):
                self._fail(slot, answer.why, answer.fix)
            return
        loaded = Loaded.of(answer, fds)
        if slot.final is not None:
            # It was switched off and on between two Frames: one cannot tell of both.
            self._on_frame(self._frame(time.monotonic()))
        try:
            slot.probe.set_filters(self._watched.filters, self._watched.started)
            slot.probe.adopt(loaded)
            slot.state, slot.begun = "on", time.monotonic()
            self._governed.begun(slot.probe, slot.begun)
            self._run_times.windows.begin_soon(slot.probe, time.monotonic())
        except (ProbeError, OSError, ValueError) as error:
            self._link.detach(loaded.unit, None)
            self._fail(slot, f"its maps cannot be read ({error})", "run probetop doctor")
        finally:
            loaded.close()
        self._watch()

    def _fail(self, slot: Slot, why: str, fix: str) -> None:
        slot.generation = None
        slot.state, slot.why, slot.fix = "failed", why, fix
        slot.probe.release()
        self._watch()

    def _hold(self, name: str, why: str, fix: str) -> None:
        """Detach a probe that costs too much now."""
        slot = self._slots[name]
        # Who asked what goes on gets the answer that there is.
        now = time.monotonic()
        before, begun = slot.before(now)
        seen = slot.probe.last_seen(before, now - begun)
        seen = seen and f"; at {time.strftime('%H:%M:%S')} {seen}"
        self._fail(slot, why + seen, fix)
        slot.held, slot.pending = True, None

    def _measure_soon(self, slot: Slot) -> None:
        self._run_times.windows.begin_soon(slot.probe, time.monotonic())

    def _watch(self) -> None:
        """Wait on the ring buffers that there are now, and for the end of a filtered process."""
        wanted = {fd for slot in self._slots.values() for fd in slot.probe.wait_fds()}
        wanted |= set(self._watched.wait_fds())
        for fd in self._waiting_on - wanted:
            # Closed by its owner: epoll forgot it, the selector did not.
            with suppress(KeyError, OSError, ValueError):
                self._selector.unregister(fd)
        for fd in wanted - self._waiting_on:
            self._selector.register(fd, selectors.EVENT_READ)
        self._waiting_on = wanted

    def _running(self) -> list[Probe]:
        return [slot.probe for slot in self._slots.values() if slot.state == "on"]

    def note(self, text: str) -> None:
        """Write a line to the log, if there is one."""
        self._write_log(text)

    def _write_log(self, text: str) -> None:
        if self._log is not None and text.strip():
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            opened = isinstance(self._log, int)
            with (
                suppress(OSError),
                open(self._log, "a", encoding="utf-8", closefd=not opened) as file,
            ):
                file.write(f"{stamp} {text.rstrip()}\n")


def _choices(names: Mapping[str, Any]) -> str:
    return f"choose from {', '.join(names)}" if names else "it has none"
