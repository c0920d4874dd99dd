# SPDX-License-Identifier: Apache-2.0
"""The README's pictures: the dashboard on the running kernel, as SVG (and PNG) in this folder.

    sudo .venv/bin/python -m screenshots.make [--seconds N]

It starts bench/workload.py in a control group of its own and shows that group only, so that
nothing of the machine's other work is in the pictures. It takes about two minutes: the graphs
fill up. PNGs, for looking at, need rsvg-convert or chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from textual.pilot import Pilot

from probes.core.errors import ProbeError
from probes.core.frame import Filters
from probes.core.kernel import cgroup2
from probes.live.source import LiveSource
from probes.live.start import open_live
from tui.app.app import ProbetopApp
from tui.app.start import dashboard
from tui.export.picture import picture
from tui.registry import REGISTRY

HERE = Path(__file__).resolve().parent
WORKLOAD = HERE.parent / "bench" / "workload.py"
SLICE = "shop.slice"
WIDE, SMALL = (120, 40), (80, 24)
MOST_BYTES = 300_000


class Photographer:
    """Presses keys, waits for what the kernel says next, and keeps what it sees."""

    def __init__(self, app: ProbetopApp, pilot: Pilot[int]) -> None:
        self.app, self.pilot = app, pilot
        self.pictures: dict[str, str] = {}

    async def press(self, *keys: str, ticks: int = 0) -> None:
        """Type, and wait for some intervals."""
        await self.pilot.press(*keys)
        await self.wait(ticks)

    async def wait(self, ticks: int) -> None:
        """Wait until this many further Frames are on the screen; raises ProbeError at an end."""
        for _ in range(ticks):
            before = self.app.view.frame
            while self.app.view.frame is before:
                if self.app.ended is not None:
                    raise ProbeError(self.app.ended, "run probetop doctor")
                await asyncio.sleep(0.02)
        await self.pilot.pause()

    async def take(self, name: str, size: tuple[int, int]) -> None:
        """A picture of the screen at this size."""
        if self.app.size != size:
            await self.pilot.resize_terminal(*size)
            await self.wait(1)
        self.pictures[name] = picture(self.app)


async def session(source: LiveSource, seconds: int) -> dict[str, str]:
    """A look around, as somebody with a slow shop would have it; SVGs by name."""
    app = dashboard(source)
    async with app.run_test(size=WIDE) as pilot:
        camera = Photographer(app, pilot)
        await camera.wait(3)
        failed = [
            s.why for s in (app.view.frame.samples if app.view.frame else {}).values() if s.why
        ]
        if failed:
            raise ProbeError(failed[0] or "a probe failed", "run probetop doctor")
        await camera.press("l", ticks=seconds)
        await camera.take("overview-120x40", WIDE)
        await camera.take("overview-80x24", SMALL)
        await pilot.resize_terminal(*WIDE)
        # Who waits for a queue in vain, and which program is it that was not found?
        await camera.press("slash", *"recvfrom", "enter", "enter", ticks=2)
        await camera.press("tab", "slash", *"enoent", "enter", "enter", ticks=2)
        await camera.take("drilled-120x40", WIDE)
        app.exit()
    return camera.pictures


def convert(svg: Path) -> None:
    """A PNG beside the SVG, if something that makes one is installed."""
    png = svg.with_suffix(".png")
    if shutil.which("rsvg-convert"):
        command = ["rsvg-convert", "-o", str(png), str(svg)]
    elif shutil.which("chromium"):
        flags = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--screenshot={png}"]
        command = ["chromium", *flags, svg.as_uri()]
    else:
        return
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def photograph(seconds: int) -> int:
    """Takes all pictures and prints them as JSON, for this process may write no files."""
    try:
        source = open_live(
            {entry.name: entry.probe_path for entry in REGISTRY},
            on=[entry.name for entry in REGISTRY if entry.on_at_start],
            options={},
            filters=Filters(cgroup=f"/{SLICE}"),
            interval=1.0,
            # To take pictures takes more than to show the screen.
            budget=5.0,
        )
        json.dump(asyncio.run(session(source, seconds)), sys.stdout)
    except ProbeError as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 1
    return 0


def write(pictures: Mapping[str, str]) -> int:
    """Writes all pictures, with an exit status."""
    for name, svg in pictures.items():
        path = HERE / f"{name}.svg"
        path.write_text(svg, encoding="utf-8")
        size = path.stat().st_size
        print(f"{path.relative_to(HERE.parent)}  {size / 1000:.0f} kB")
        if size > MOST_BYTES or "url(http" in svg:
            print(f"{path.name} is too large or asks for a font: look at it", file=sys.stderr)
            return 1
        convert(path)
    return 0


def wait_for_slice(workload: subprocess.Popen[bytes]) -> None:
    """Returns once the workload has made its control group, or has ended."""
    mount = cgroup2()
    while mount is not None and workload.poll() is None:
        if any((mount / SLICE).glob("*/cgroup.procs")):
            return
        time.sleep(0.05)


def main() -> int:
    """Runs the workload, and the photographer meanwhile."""
    parser = argparse.ArgumentParser(description="Makes the README's pictures.")
    parser.add_argument("--seconds", type=int, default=110, help="before the first picture")
    parser.add_argument("--photograph", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.photograph:
        return photograph(args.seconds)
    # The pictures are of a common terminal, whatever this is run from.
    os.environ |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    os.environ.pop("NO_COLOR", None)
    length = str(args.seconds + 60)
    command = ["/usr/bin/python3", str(WORKLOAD), "--slice", SLICE, "--seconds", length]
    workload = subprocess.Popen(command)
    try:
        wait_for_slice(workload)
        # A process of its own: it gives up the privileges that ending the workload needs.
        again = [sys.executable, "-m", "screenshots.make", *sys.argv[1:], "--photograph"]
        done = subprocess.run(again, cwd=HERE.parent, check=False, stdout=subprocess.PIPE)
        return done.returncode or write(json.loads(done.stdout))
    finally:
        workload.send_signal(signal.SIGTERM)
        workload.wait(20)


if __name__ == "__main__":
    sys.exit(main())
