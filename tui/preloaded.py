# SPDX-License-Identifier: Apache-2.0
"""Imports everything that a dashboard may ever need, for users that cannot read its files later.

That is so where probetop lies in a directory of root's and the dashboard becomes nobody.
"""

from __future__ import annotations

import pkgutil
from contextlib import suppress
from importlib import import_module

from rich.cells import cell_len

OURS = (
    "tui.shared",
    "tui.settings",
    "tui.terminal",
    "tui.panes",
    "tui.sessions",
    "tui.widgets",
    "tui.export",
    "tui.app",
    "tui.app.controllers",
    "tui",
    "probes",
)
ELSEWHERE = {"tui.agent", "tui.commands", "tui.hosts", "tui.demo", "tui.cli", "probes.data"}
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
"""What Textual and Rich import when it is first used."""


def load() -> None:
    """Import them all; what is not installed is not needed."""
    for package in OURS:
        for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
            if module.name not in ELSEWHERE and module.name not in OURS:
                with suppress(ImportError):
                    import_module(module.name)
    for name in LATE:
        with suppress(ImportError):
            import_module(name)
    import_module("tui.export.html").preload()
    # Rich reads its table of character widths for the first character that is not ASCII.
    cell_len("\u4e00")
