# SPDX-License-Identifier: Apache-2.0
"""probetop without its screen, attached until its input ends.

    python -m bench.attached '{"on": ["syscalls"], "options": {}, "always": false}'

It opens the live source as the dashboard does, says "on" once all probes run, and polls them
once a second from then on. The kernel's run-time statistics are on for a second at the start
and then for one in ten: "on" comes when the first of these is over, and the next is seconds
away; with `always` (--cost always) they stay on.
"""

from __future__ import annotations

import json
import sys

from probes.core.errors import ProbeError
from probes.core.frame import NO_FILTERS, Frame
from probes.live.start import open_live
from tui.registry import REGISTRY

FIRST_INTERVAL, INTERVAL = 0.2, 1.0


def main() -> int:
    """Runs until end of input."""
    wish = json.loads(sys.argv[1])
    try:
        source = open_live(
            {entry.name: entry.probe_path for entry in REGISTRY},
            on=wish["on"],
            options=wish["options"],
            filters=NO_FILTERS,
            interval=FIRST_INTERVAL,
            cost_always=wish["always"],
        )
    except ProbeError as error:
        print(error, flush=True)
        return 1
    said = False

    def on_frame(frame: Frame) -> None:
        nonlocal said
        samples = [frame.samples[name] for name in wish["on"]]
        if any(sample.state == "failed" for sample in samples):
            print(f"failed: {[sample.why for sample in samples]}", flush=True)
        # A cost that is known comes from a window that has ended.
        ready = all(s.state == "on" and s.cost.cpu_percent is not None for s in samples)
        if ready and not said:
            said = True
            source.set_interval(INTERVAL)
            print("on", flush=True)

    source.start(on_frame, lambda why: print(f"ended: {why}", flush=True))
    sys.stdin.read()
    source.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
