# SPDX-License-Identifier: Apache-2.0
"""The doctor's verdicts, and its report of them for people."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

THROUGH_SUDO = "run the doctor through sudo"


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict: `ok` is None when it could not be tried.

    `detail` says what was seen, `means` what a 'no' takes away from which pane, `fix`
    how to mend it. The default panes run only if every `needed` check is ok.
    """

    name: str
    ok: bool | None
    detail: str
    means: str
    fix: str
    needed: bool


def _headline(facts: dict[str, Any]) -> str:
    hypervisor = facts["virtual_machine"]
    named = "" if hypervisor == "unknown" else f" ({hypervisor})"
    inside = [
        f"{facts['container']} container" if facts["container"] else "",
        f"virtual machine{named}" if hypervisor else "",
    ]
    return (
        f"{facts['host']}: {facts['distribution']}, Linux {facts['kernel']} {facts['machine']}, "
        f"{facts['cpus_online']} CPUs, {' in a '.join(filter(None, inside)) or 'bare metal'}"
    )


def _verdict(checks: list[Check]) -> list[str]:
    missing = [check.name for check in checks if check.needed and not check.ok]
    lines = ["The default panes can run here."]
    if missing:
        lines = [f"The default panes cannot run here yet: {', '.join(missing)}."]
    if any(check.ok is None and check.fix == THROUGH_SUDO for check in checks):
        lines.append(f"What is marked ? was not tried: {THROUGH_SUDO}.")
    return lines


def render(checks: list[Check], facts: dict[str, Any], colour: bool, width: int) -> str:
    """The report for people: a line a check, and below a 'no' its meaning and its fix."""
    paint = {True: "\x1b[32m", False: "\x1b[31m", None: "\x1b[33m"}
    words = {True: "yes", False: "no", None: "?"}
    column = max(len(check.name) for check in checks) + 2
    lines = [_headline(facts), ""]
    for check in checks:
        word = f"{words[check.ok]:<5}"
        word = f"{paint[check.ok]}{word}\x1b[0m" if colour else word
        lines.append(f"{check.name:<{column}}{word}{check.detail}")
        for label, text in (("means", check.means), ("fix", check.fix)):
            if text and check.ok is False:
                lines += textwrap.wrap(
                    text,
                    max(width, 60),
                    initial_indent=f"{'':{column}}     {label:<6}",
                    subsequent_indent=f"{'':{column}}{'':11}",
                    break_on_hyphens=False,
                )
    return "\n".join([*lines, "", *_verdict(checks)])
