# SPDX-License-Identifier: Apache-2.0
"""The command `attach`: the dashboard of other machines, here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from probes.core.errors import ProbeError
from tui.commands.attach_targets import sources
from tui.settings.options import Options

Complain = Callable[[str], None]


def attach(options: Options, typed: Mapping[str, Any], complain: Complain) -> int:
    """Connects, and shows the machines until the user quits; returns the exit status.

    One of several that cannot be reached is told of and tried again later. Raises ProbeError
    where none can.
    """
    made = sources(typed)
    failed: list[ProbeError] = []
    try:
        for source in made:
            try:
                source.open(tell=complain)
            except ProbeError as error:
                failed.append(error)
                if len(made) > 1 and len(failed) < len(made):
                    complain(f"{error.why}; {error.fix}" if error.fix else error.why)
        if len(failed) == len(made):
            raise failed[-1]
        from tui.app.start import run_attached

        return run_attached(made, ascii=options.ascii, history=options.history)
    finally:
        for source in made:
            source.stop()
