# SPDX-License-Identifier: Apache-2.0
"""Text for a terminal: made safe, measured in cells, and numbers of constant width.

Any text that a process chose (comm, argv, paths) passes `safe`. `tui.shared.styled_lines.compose`
applies it to all drawn text, so that no widget can omit it.
"""

from __future__ import annotations

import unicodedata

from rich.cells import cell_len, get_character_cell_size

_SHORT_ESCAPES = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\x1b": "\\e", "\x07": "\\a"}
_PLAIN = frozenset(map(chr, range(0x20, 0x7F)))
_DRAWN = _PLAIN | frozenset(map(chr, range(0x2500, 0x25A0))) | frozenset("\u00b1\u2026\u25b4\u25be")
"""ASCII, box drawing, block elements and the marks of `tui.shared.theme`: safe, one cell wide."""
UNKNOWN = "-"
"""The text for an unknown value."""


def _escape(char: str) -> str:
    short = _SHORT_ESCAPES.get(char)
    if short is not None:
        return short
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _joins(char: str) -> bool:
    """Characters that terminals combine with a neighbour, so that widths do not add up."""
    code = ord(char)
    return 0x1F1E6 <= code <= 0x1F1FF or 0x1F3FB <= code <= 0x1F3FF


def _harmless(char: str, plain: bool) -> bool:
    if char.isascii():
        return char.isprintable()
    if plain or not char.isprintable() or _joins(char):
        return False
    return get_character_cell_size(char) > 0


def safe(text: str, plain: bool = False) -> str:
    r"""Escape each character that would not show as itself in its own cells.

    Control characters, bidirectional controls, undecodable bytes (surrogate escapes) and zero-width
    characters become backslash escapes (`\e`, `\u202e`, `\xff`); with `plain`, so does all that is
    not ASCII. Accents with a composed form are composed first.
    """
    if (_PLAIN if plain else _DRAWN).issuperset(text):
        return text
    if not plain:
        text = unicodedata.normalize("NFC", text)
    return "".join([c if _harmless(c, plain) else _escape(c) for c in text])


def width(text: str) -> int:
    """The number of cells of a safe text."""
    return len(text) if text.isascii() else cell_len(text)


def clip(text: str, cells: int, mark: str = "") -> str:
    """At most `cells` cells of a safe text; `mark` is its end if it was cut."""
    if width(text) <= cells:
        return text
    room = cells - width(mark)
    if room < 0:
        return clip(mark, cells) if mark else ""
    if text.isascii():
        return text[:room] + mark
    used = 0
    for at, char in enumerate(text):
        used += get_character_cell_size(char)
        if used > room:
            return text[:at] + mark
    return text


def fit(text: str, cells: int, right: bool = False, mark: str = "") -> str:
    """A safe text in exactly `cells` cells: cut off or padded."""
    text = clip(text, cells, mark)
    pad = " " * (cells - width(text))
    return pad + text if right else text + pad


def shorten(text: str, cells: int, mark: str) -> str:
    """At most `cells` cells of a safe text, cut in the middle to keep a path's end."""
    if width(text) <= cells:
        return text
    room = cells - width(mark)
    if room < 4:
        return clip(text, cells, mark)
    tail = text[-(room - room // 3) :]
    while width(tail) > room - room // 3:
        tail = tail[1:]
    return clip(text, room - width(tail)) + mark + tail


def wrap(text: str, cells: int) -> list[str]:
    """Break a safe text at spaces, or within an overlong word, into lines of `cells` cells."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if width(joined) <= cells:
            line = joined
            continue
        if line:
            lines.append(line)
        while width(word) > cells > 1:
            head = clip(word, cells)
            lines.append(head)
            word = word[len(head) :]
        line = word
    return [*lines, line] if line or not lines else lines


def fmt_count(value: float | None) -> str:
    """A number or rate in at most 5 cells, three digits: "7", "3.4", "812", "30.1k", "1.20M".

    Whole numbers below 1000 have no decimals; a rate below 10 has one.
    """
    if value is None:
        return UNKNOWN
    if value < 0:
        return "-" + fmt_count(-value)
    if value < 999.5:
        small = isinstance(value, float) and 0 < value < 9.95
        return f"{value:.1f}" if small else f"{value:.0f}"
    for unit in "kMGTPE":
        value /= 1000
        if value < 9.995:
            return f"{value:.2f}{unit}"
        if value < 99.95:
            return f"{value:.1f}{unit}"
        if value < 999.5:
            return f"{value:.0f}{unit}"
    return "huge"


def fmt_within(error: float, value: float) -> str:
    """An uncertainty in per cent of `value`: "3%", "0.4%"; "?" from 100 % on."""
    part = 100 * error / value if value > 0 else 100.0
    if part >= 100:
        return "?"
    return f"{part:.0f}%" if part >= 0.95 else f"{part:.1f}%"


def fmt_ns(value: float | None) -> str:
    """A duration in nanoseconds in at most 5 cells: "830ns", "2.1us", "310us", "12ms", "2m05"."""
    if value is None:
        return UNKNOWN
    if value < 999.5:
        return f"{value:.0f}ns"
    for unit in ("us", "ms", "s"):
        value /= 1000
        if value < 9.95:
            return f"{value:.1f}{unit}"
        if value < (99.5 if unit == "s" else 999.5):
            return f"{value:.0f}{unit}"
    seconds = round(value)
    if seconds < 6000:
        return f"{seconds // 60}m{seconds % 60:02d}"
    if seconds < 100 * 3600:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}"
    if seconds < 100 * 86400:
        return f"{seconds // 86400}d{seconds % 86400 // 3600:02d}"
    return f"{seconds // 86400}d"


def at_most(text: str, exact: bool | None) -> str:
    """A maximum as text, with a mark if it is only an upper bound."""
    return text if exact is not False or text == UNKNOWN else f"<={text}"


def fmt_seconds(value: float) -> str:
    """Seconds of an interval, to a tenth so that the text does not flicker: "1", "0.5"."""
    return f"{max(0.1, value):.1f}".removesuffix(".0")


def fmt_bytes(size: int) -> str:
    """A number of bytes: "840 B", "4.2 kB", "64.0 MB" (powers of ten, as for disks)."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e3:.1f} kB" if size < 999_950 else f"{size / 1e6:.1f} MB"


def fmt_clock(seconds: float) -> str:
    """A length of time as media players show it: "0:09", "12:05", "1:00:00"."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def fmt_percent(part: float | None, whole: float | None) -> str:
    """A part of a whole in at most 5 cells: "37.1%", "100%"; a dash if unknown or of nothing."""
    if part is None or not whole:
        return UNKNOWN
    share = 100 * part / whole
    return f"{share:.0f}%" if share >= 99.95 else f"{share:.1f}%"
