# SPDX-License-Identifier: Apache-2.0
"""What the loader tells of a latency target, for tests that care about a part of it."""

from __future__ import annotations

from typing import Any

from probes.ipc.messages import convert
from probes.latency.facts import TargetFacts


def target_facts(**more: Any) -> TargetFacts:
    """A uprobe's, with these fields in place of the usual ones; checked as a loader's are."""
    usual = {
        "spec": "uprobe:libc:malloc", "slot": 0, "mechanism": "uprobe", "functions": 1,
        "counts_only": False, "watches": False, "unit": "ns", "by_text": False, "floor": "uprobe",
        "countable": True,
    }  # fmt: skip
    return convert({**usual, **more}, TargetFacts)
