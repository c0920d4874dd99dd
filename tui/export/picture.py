# SPDX-License-Identifier: Apache-2.0
"""The dashboard's screen as SVG that asks no server for a font."""

from __future__ import annotations

import html
import re

from textual.app import App

FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"


def picture(app: App[int]) -> str:
    """The screen as it is now; it contains no address of anything."""
    svg = app.export_screenshot(title="probetop", simplify=True)
    # Behind it are texts that processes chose, which may be like anything in it.
    head, end, body = svg.partition("</style>")
    head = re.sub(r"<!--.*?-->\s*", "", head, flags=re.DOTALL)
    head = re.sub(r"@font-face\s*\{.*?\}\s*", "", head, flags=re.DOTALL)
    head = re.sub(r"font-family:\s*[^;]*;", f"font-family: {FONTS};", head)
    head = re.sub(r"terminal-\d+", "terminal", head)
    body = re.sub(r"(<[^>]*)", _named, body)
    svg = head + end + body
    svg = re.sub(r'x="([\d.]+)"( y="[\d.]+") textLength="([\d.]+)"([^>]*)>([^<]*)', tight, svg)
    return "\n".join([line.rstrip() for line in svg.splitlines()]) + "\n"


def _named(match: re.Match[str]) -> str:
    """A tag with the names that it has in the style."""
    return re.sub(r"terminal-\d+", "terminal", match[1])


def tight(match: re.Match[str]) -> str:
    """One text without the blanks around it, which not every program takes for text."""
    x, y, length, rest, text = match.groups()
    bare = text.replace("&#160;", " ")
    cell = float(length) / len(html.unescape(bare))
    start = float(x) + cell * (len(bare) - len(bare.lstrip(" ")))
    inner = bare.strip(" ")
    length = cell * len(html.unescape(inner))
    shown = inner.replace(" ", "&#160;")
    return f'x="{start:g}"{y} textLength="{length:g}"{rest}>{shown}'
