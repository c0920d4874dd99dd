# SPDX-License-Identifier: Apache-2.0
"""What the live source asks the broker beside loading, and who is waiting for the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from probes.broker.client import BrokerLink
from probes.ipc.messages import Answer
from probes.source import Found

OnFound = Callable[[Sequence[Found]], None]
OnAnswer = Callable[[dict[str, Any]], None]


class Questions:
    """Questions by the ids of their requests. All of it happens in the poller's thread."""

    def __init__(self, link: BrokerLink) -> None:
        self._link = link
        self._searches: dict[int, OnFound] = {}
        self._helping: dict[int, OnAnswer] = {}

    def search(self, query: str, on_found: OnFound) -> None:
        """Ask what can be traced; whoever asked before may get no answer any more."""
        self._searches = {self._link.tell("search", query=query): on_found}

    def help(self, name: str, on_answer: OnAnswer) -> None:
        """Have a helper work, see `probes.broker.jobs`."""
        self._helping[self._link.tell("help", name=name)] = on_answer

    def answered(self, answer: Answer) -> bool:
        """Pass on what the broker says, if it is an answer to one of these."""
        if answer.id is None:
            return False
        on_found = self._searches.pop(answer.id, None)
        if on_found is not None:
            found = answer.found if answer.ok else [("", "", answer.why, None)]
            on_found([Found(*entry) for entry in found])
            return True
        on_answer = self._helping.pop(answer.id, None)
        if on_answer is not None:
            told = {"ok": answer.ok, "why": answer.why, "fix": answer.fix}
            on_answer({**told, "result": answer.result} if answer.ok else told)
            return True
        return False
