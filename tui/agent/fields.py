# SPDX-License-Identifier: Apache-2.0
"""The parameters of a request's address: texts of bounded length, nothing beside what is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probes.base import ProbeError
from tui.settings.decoding import MOST_TEXT
from tui.settings.validators import near, shown


class Fields:
    """The parameters by name; raises ProbeError for unknown ones."""

    def __init__(self, value: Mapping[str, str], known: Sequence[str]) -> None:
        for name in value:
            if name not in known:
                fix = near(name[:40], known) if known else "leave it out"
                raise ProbeError(f"the address has an unknown parameter {shown(name)}", fix)
        self._value = value

    def text(self, name: str) -> str | None:
        """A parameter, or None where it is missing."""
        value = self._value.get(name)
        if value is not None and len(value) > MOST_TEXT:
            raise ProbeError(f"{name}: longer than {MOST_TEXT} characters", "give less")
        return value

    def needed(self, name: str) -> str:
        """A parameter that must be there."""
        value = self.text(name)
        if value is None:
            raise ProbeError(f"{name} is missing", f"give {name}")
        return value
