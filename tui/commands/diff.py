# SPDX-License-Identifier: Apache-2.0
"""The command `diff`: prints what changed from one run to another, and writes it as a page."""

from __future__ import annotations

import json
from typing import TextIO

from probes.core.errors import ProbeError
from probes.host.files import printable
from probes.host.output import write
from probes.report.stream import dumps
from tui.commands.comparison import RULE, Change, as_object, compare, show, warnings
from tui.commands.diff_input import Run, load_both
from tui.commands.stream_record import check_new
from tui.export.words import duration, stamp
from tui.settings.validators import UsageError
from tui.shared.text import fit, safe, wrap


def as_text(a: Run, b: Run, changes: list[Change]) -> list[str]:
    """The comparison as lines in which nothing acts on a terminal."""
    out = []
    for name, run in (("A", a), ("B", b)):
        head = run.head
        machine = f"{safe(head['host'])}  {safe(head['release'])} {safe(head['arch'])}"
        when = f"{stamp(head['begin'])}  {duration(head['seconds'])}"
        out.append(f"{name}  {printable(run.path)}  {machine}  {when}")
    out += [f"!  {safe(words)}" for words in warnings(a, b)]
    out.append("")
    if changes:
        items = [safe(change.key.item) for change in changes]
        room = min(50, max([len(item) for item in items]))
        room = max(room, 4)
        out.append(f"{'what':8} {fit('item', room)}  {'':17} {'A':>7} {'B':>7}  change")
        for change, item in zip(changes, items, strict=True):
            key = change.key
            values = [
                show(one.value, change.figure, one.error > 0)
                for one in (change.before, change.after)
            ]
            out.append(
                f"{key.what:8} {fit(item, room, mark='~')}  {key.quantity:17} "
                f"{values[0]:>7} {values[1]:>7}  {change.word()}"
            )
        out.append("")
    compared = len({**a.figures, **b.figures})
    return out + wrap(f"{len(changes)} of {compared} figures changed. {RULE}", 100)


def diff(
    a_path: str, b_path: str, out: TextIO, *, as_json: bool, html: str | None, force: bool
) -> int:
    """Compares two files, prints what changed and writes it as a page if asked to.

    Returns the exit status. Raises UsageError for a file that is none of probetop's, ProbeError
    where the page cannot be written.
    """
    if html is not None:
        check_new(html, force)
    try:
        a, b = load_both(a_path, b_path)
    except ProbeError as error:
        raise UsageError(error.why, error.fix) from error
    changes = compare(a, b)
    if html is not None:
        from tui.commands.diff_page import diff_page
        from tui.export.write import write_file

        write_file(html, diff_page(a, b, changes, as_object(a, b, changes)), force)
    if as_json:
        text = json.dumps(json.loads(dumps(as_object(a, b, changes))), indent=2) + "\n"
    else:
        text = "\n".join(as_text(a, b, changes)) + "\n"
    write(text, out)
    return 0
