# SPDX-License-Identifier: Apache-2.0
"""A dashboard without a screen, to be run, questioned and killed as a process of its own.

    python -m tests.kernel.dashboard '{"on": [...], "run_as": null, "log": null,
        "paths": {}}'

It opens the live source as probetop does, prints one JSON line a Frame ({"states", "why",
"calls", "execs"}) and takes commands as lines of JSON ({"toggle": ["execs", false]}); an
end of the source is {"end": REASON}, an end of input makes it stop.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from probes.core.errors import ProbeError
from probes.core.frame import Filters, Frame
from probes.execs.sample import ExecSample
from probes.live.start import open_live
from probes.syscalls.sample import SyscallSample

PATHS = {"syscalls": "probes.syscalls.probe:SyscallProbe", "execs": "probes.execs.probe:ExecProbe"}
_lock = threading.Lock()


def say(line: dict[str, Any]) -> None:
    """Print one line at once."""
    with _lock:
        print(json.dumps(line), flush=True)


def on_frame(frame: Frame) -> None:
    """What a test needs to know of a Frame."""
    syscalls, execs = frame.samples["syscalls"], frame.samples.get("execs")
    say(
        {
            "states": {name: sample.state for name, sample in frame.samples.items()},
            "why": {name: sample.why for name, sample in frame.samples.items()},
            "calls": sum(n.n for n in syscalls.calls.values())
            if isinstance(syscalls, SyscallSample)
            else 0,
            "execs": execs.execs if isinstance(execs, ExecSample) else 0,
        }
    )


def main() -> None:
    """Run until the input or the source ends."""
    wish = json.loads(sys.argv[1])
    paths = {**PATHS, **wish.get("paths", {})}
    try:
        source = open_live(
            paths,
            on=wish.get("on", list(paths)),
            options={},
            filters=Filters(),
            interval=0.1,
            run_as=wish.get("run_as"),
            log=wish.get("log"),
        )
    except ProbeError as error:
        say({"error": error.why, "fix": error.fix})
        sys.exit(1)
    ended = threading.Event()

    def on_end(reason: str) -> None:
        say({"end": reason})
        ended.set()

    source.start(on_frame, on_end)
    for line in sys.stdin:
        for command, args in json.loads(line).items():
            getattr(source, command)(*args)
    source.stop()
    say({"stopped": ended.is_set(), "uid": os.getuid()})


if __name__ == "__main__":
    main()
