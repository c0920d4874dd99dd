# SPDX-License-Identifier: Apache-2.0
"""Imports modules early, while the program's files are readable.

If probetop lies in a directory that only root can read, the dashboard cannot import anything after
it has switched to the user nobody.
"""

from __future__ import annotations

import os
import pkgutil
from contextlib import suppress
from importlib import import_module

from tui.export.write import ending_of, new_summarizer
from tui.registry import REGISTRY

ELSEWHERE = ("tui.agent", "tui.commands", "tui.demo", "tui.cli", "probes.data", "probes.doctor")
"""What a dashboard has no use for: of these packages, all modules."""
LATE = (
    "textual.command",
    "textual.widgets._input",
    "textual.widgets._option_list",
    "textual.widgets._loading_indicator",
    "textual.widgets._static",
    "textual.widgets._label",
    "textual.widgets._button",
    "textual.widgets._tooltip",
    "textual.widgets._toast",
    "textual.system_commands",
    "textual.scrollbar",
    "textual.pilot",
    "textual.drivers.headless_driver",
    "textual.layouts.factory",
    "textual.layouts.horizontal",
    "textual.layouts.vertical",
    "textual.layouts.grid",
    "textual.layouts.stream",
    "rich.traceback",
    "rich._export_format",
    "encodings.idna",
)
"""Modules that Textual and Rich import on first use."""


DRAWN = 60.0
"""Seconds that the graphs of a picture in a file cover."""


def for_file(path: str) -> None:
    """Import all that an export to this file needs; raises ProbeError if its suffix is unknown."""
    ending = ending_of(path)
    new_summarizer()
    if ending != ".json":
        # The picture shows an ordinary terminal, regardless of the caller's environment.
        os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        os.environ.pop("NO_COLOR", None)
        import_module("tui.app.offscreen")
        for entry in REGISTRY:
            entry.pane_class()
    if ending == ".html":
        import_module("tui.export.html").preload()


def everything() -> None:
    """Import all modules that a dashboard can need, as far as they are installed."""
    for package in ("tui", "probes"):
        for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
            if not f"{module.name}.".startswith(tuple([f"{name}." for name in ELSEWHERE])):
                with suppress(ImportError):
                    import_module(module.name)
    for name in LATE:
        with suppress(ImportError):
            import_module(name)
    import_module("tui.export.html").preload()
    # Rich reads its table of character widths when it first sees a non-ASCII character.
    import_module("rich.cells").cell_len("\u4e00")
