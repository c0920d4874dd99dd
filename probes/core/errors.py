# SPDX-License-Identifier: Apache-2.0
"""How a part of the program says that it cannot go on: why, and how to mend it."""

from __future__ import annotations


class ProbeError(Exception):
    """Something cannot be done: `why` in one sentence, and how to mend it (`fix`).

    `log` holds what the tool chain printed, for the log file only.
    """

    def __init__(self, why: str, fix: str = "", log: str = "") -> None:
        super().__init__(f"{why}: {fix}" if fix else why)
        self.why = why
        self.fix = fix
        self.log = log
