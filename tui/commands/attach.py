# SPDX-License-Identifier: Apache-2.0
"""The command `attach`: the dashboard of remote hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from probes.core.errors import ProbeError
from tui.commands.attach_targets import sources
from tui.settings.options import Options

Complain = Callable[[str], None]


def attach(options: Options, typed: Mapping[str, Any], complain: Complain) -> int:
    """Connect, and show the hosts until the user quits; return the exit status.

    With several hosts, one that cannot be reached is reported and tried again later. Raises
    ProbeError if none can be reached.
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
