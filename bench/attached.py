# SPDX-License-Identifier: Apache-2.0
"""probetop without its screen, attached until its input ends.

    python -m bench.attached '{"on": ["syscalls"], "options": {}, "always": false}'

It opens the live source as the dashboard does, polls it once a second, and says "on" once all
probes run and the kernel's run-time statistics, which are on for a second at the start and
then for one in ten, are off again; with `always` they stay on (--cost always).
"""

from __future__ import annotations

import json
import sys

from probes.samples import NO_FILTERS, Frame
from probes.start import open_live
from tui.registry import REGISTRY

STATISTICS_SECONDS = 3.0
"""The first window of statistics and a poll are over by then, the second window is not near."""


def main() -> int:
    """Runs until end of input."""
    wish = json.loads(sys.argv[1])
    source = open_live(
        {entry.name: entry.probe_path for entry in REGISTRY},
        on=wish["on"],
        options=wish["options"],
        filters=NO_FILTERS,
        interval=1.0,
        cost_always=wish["always"],
    )
    since: float | None = None
    said = False

    def on_frame(frame: Frame) -> None:
        nonlocal since, said
        states = {name: frame.samples[name].state for name in wish["on"]}
        if all(state == "on" for state in states.values()):
            since = frame.mono if since is None else since
            if not said and (wish["always"] or frame.mono - since >= STATISTICS_SECONDS):
                said = True
                print("on", flush=True)
        if "failed" in states.values():
            print(f"failed: {[frame.samples[name].why for name in wish['on']]}", flush=True)

    source.start(on_frame, lambda why: print(f"ended: {why}", flush=True))
    sys.stdin.read()
    source.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
