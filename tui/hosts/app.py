# SPDX-License-Identifier: Apache-2.0
"""Dashboards of other machines as a program: one on the screen, the others go on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import ClassVar

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen

from probes.history import MOST_BYTES, SECONDS, History
from probes.samples import Filters, Frame
from tui.app.app import ProbetopApp, run
from tui.hosts.hosts_bar import Entry, HostsBar, entry_of
from tui.hosts.remote_session import LinkedSource, RemoteFeed
from tui.sessions.session import Feed
from tui.settings.filter_syntax import parse_filters
from tui.shared.styled_lines import Span
from tui.shared.theme import Look
from tui.widgets.footer import Hint

LOOK_SECONDS = 1.0
"""How often the age of what is shown, and the line of hosts, are told anew."""
WAITING = "waiting for what the other machine sends"
HELP = (
    ("n N", "next, previous host at its newest; what is paused stays paused"),
    ("! ~", "line of hosts: probes that failed, that do without something"),
)


class Refused(Message):
    """A machine would not do what it was asked for; `why` is one line."""

    def __init__(self, feed: RemoteFeed, why: str) -> None:
        super().__init__()
        self.feed = feed
        self.why = why


class FirstFrame(Message):
    """A machine has answered for the first time."""


class AttachedApp(ProbetopApp):
    """Shows one of several machines at a time.

    Each has a history of its own, an equal share of the memory for it, and its own panes: what
    is drilled into, sorted by or filtered for there. Frames of those that are not shown only go
    into their histories; their line is painted once a second.
    """

    feed: RemoteFeed
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "host(1)", "Next host", show=False),
        Binding("N", "host(-1)", "Previous host", show=False),
    ]

    def __init__(
        self,
        sources: Sequence[LinkedSource],
        *,
        ascii: bool = False,  # noqa: A002
        history: float = SECONDS,
    ) -> None:
        """Takes at least one source, none of them started."""
        self._sources = list(sources)
        self.feeds: list[RemoteFeed] = []
        super().__init__(sources[0], ascii=ascii, history=history)

    def make_feeds(self, history: float) -> Feed:
        """A feed of each machine; the first is shown first."""
        room = MOST_BYTES // len(self._sources)
        for source in self._sources:
            kept = History(history, room)
            feed = RemoteFeed(source, self.look, kept, self.check_now)
            for pane in feed.panes:
                pane.awaited, pane.here = WAITING, False
            source.refused = partial(self._take_refusal, feed)
            self.feeds.append(feed)
        return self.feeds[0]

    def make_bars(self, look: Look) -> Sequence[HostsBar]:
        """The line of hosts, where there are several."""
        return [HostsBar(look, self._entries, self.show_host)] if self.several else []

    @property
    def several(self) -> bool:
        """Whether there is more than one machine."""
        return len(self.feeds) > 1

    @property
    def at(self) -> int:
        """Which of the machines is shown."""
        return self.feeds.index(self.feed)

    def _entries(self) -> tuple[list[Entry], int]:
        return [entry_of(feed) for feed in self.feeds], self.at

    # -- what comes ----------------------------------------------------------------------

    def start_sources(self) -> None:
        """Have Frames of all machines come, and look at their links now and then."""
        for feed in self.feeds:
            self.start_feed(feed)
        self.set_interval(LOOK_SECONDS, self._look_again)
        self.look_at_links()

    def _on_frame(self, feed: Feed, frame: Frame) -> None:
        first = feed.history.end == 0
        super()._on_frame(feed, frame)
        if first:
            self.post_message(FirstFrame())

    def _take_refusal(self, feed: RemoteFeed, why: str) -> None:
        self.post_message(Refused(feed, why))

    def on_first_frame(self, message: FirstFrame) -> None:
        """It is not connecting any more."""
        self.look_at_links()

    def on_refused(self, message: Refused) -> None:
        """Say why nothing becomes of a command."""
        if message.feed is self.feed:
            self.forget_wishes()
            self.say(message.why)
        else:
            self.say(f"{message.feed.name}: {message.why}")

    def source_ended(self, feed: Feed, why: str) -> None:
        """The others go on; without any, leave and say why."""
        assert isinstance(feed, RemoteFeed)
        feed.ended = why
        if all(each.ended is not None for each in self.feeds):
            self.ended = "; ".join([self._ending(each) for each in self.feeds])
            self.exit(return_code=1)
            return
        self.say(f"{feed.name}: {why}")
        self.look_at_links()

    def _ending(self, feed: RemoteFeed) -> str:
        return f"{feed.name}: {feed.ended}" if self.several else feed.ended or ""

    def _look_again(self) -> None:
        # On a slow terminal it is told with the Frames that are drawn.
        if self.link.wait() <= 0:
            self.look_at_links()

    def look_at_links(self) -> None:
        """Say in the header and in the line of hosts how the links stand, where that changed."""
        self.tell_links()
        self.dashboard.header.repaint()
        for bar in self.dashboard.bars:
            bar.repaint()

    def tell_links(self) -> None:
        """Have the header say it when it is painted next."""
        self.dashboard.header.state.silence = self.feed.troubles()

    def tell_time(self) -> None:
        """Have the header and the footer say what moment of what machine this is."""
        super().tell_time()
        self.tell_links()

    # -- which machine is shown ------------------------------------------------------------

    def action_host(self, way: int) -> None:
        """Show the next machine or the one before."""
        if self.several:
            self.show_host((self.at + way) % len(self.feeds))

    def show_host(self, index: int) -> None:
        """Show a machine, at its newest Frame."""
        old, feed = self.feed, self.feeds[index]
        if feed is old:
            return
        board = self.dashboard
        paused = self.paused
        self._drop_moves()
        self.stop_playing()
        self.forget_wishes()
        # What is being typed was meant for the other machine.
        board.finder.close()
        if board.footer.prompt is not None:
            board.footer.close()
        self.adopt(feed)
        feed.mailbox.take()
        for widget, pane in zip(board.panes, feed.panes, strict=True):
            pane.look, widget.pane = widget.pane.look, pane
        feed.travel.drawn, feed.travel.window = old.travel.drawn, old.travel.window
        feed.travel.go_to_newest()
        self.paused = paused
        self.show_moment()
        self.look_at_links()

    # -- what the header, the footer, the help and the palette say -------------------------------

    def marks(self) -> list[Span]:
        """What the header has to point out: also a recording of a machine that is not shown."""
        others = [f.name for f in self.feeds if f is not self.feed and f.recorder.size is not None]
        text = f" REC {others[0][:12]} " if len(others) == 1 else f" REC of {len(others)} hosts "
        return [*super().marks(), *([(text, "badge.bad")] if others else [])]

    def _hints(self) -> tuple[list[Hint], list[Hint]]:
        first, last = super()._hints()
        return [*first, *([("n", "next host")] if self.several else [])], last

    def own_keys(self) -> list[tuple[str, str]]:
        """The keys of machines, for the help."""
        return list(HELP) if self.several else []

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the palette lists: each machine by its name."""
        if self.several:
            for index, feed in enumerate(self.feeds):
                show: Callable[[], None] = partial(self.show_host, index)
                yield SystemCommand(f"Host {index + 1}: {feed.name}", "n, N or a click", show)
        yield from super().get_system_commands(screen)

    def read_filters(self, text: str) -> Filters:
        """Filters of another machine: what is wrong with them is known there only."""
        return parse_filters(text, far=True)

    # -- the end ---------------------------------------------------------------------------

    def stop_source(self) -> threading.Thread:
        """Stop all sources, once, side by side."""
        if self._stopping is None:
            self._stopping = threading.Thread(target=self._stop_all, name="stop sources")
            self._stopping.start()
        return self._stopping

    def _stop_all(self) -> None:
        each = [threading.Thread(target=feed.source.stop) for feed in self.feeds]
        for thread in each:
            thread.start()
        for thread in each:
            thread.join()

    def end_recordings(self) -> None:
        """Close what is written of any machine."""
        for feed in self.feeds:
            feed.recorder.end()


def run_attached(
    sources: Sequence[LinkedSource],
    *,
    ascii: bool = False,  # noqa: A002
    history: float = SECONDS,
) -> int:
    """Show other machines until the user quits or all of them ended; all are stopped in any case.

    Returns what `tui.app.app.run_app` does.
    """
    return run(lambda: AttachedApp(sources, ascii=ascii, history=history))
