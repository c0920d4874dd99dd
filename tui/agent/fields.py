# SPDX-License-Identifier: Apache-2.0
"""Reading what a request says: each value of its right type, nothing beside what is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from probes.base import ProbeError
from tui.agent.errors import Refused
from tui.checks import near, shown

MOST_TEXT = 500
"""Characters of any text in a request."""


def parse(data: bytes) -> Any:
    """The JSON of a body; raises Refused for what is none."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
        # Half a surrogate pair can be written in JSON, but is no text.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON", "send one JSON object in UTF-8") from None
    return value


def _no_constant(word: str) -> NoReturn:
    raise ValueError(word)


class Fields:
    """The members of a JSON object, or the parameters of a query (`where` names it)."""

    def __init__(self, value: Any, known: Sequence[str], where: str = "the body") -> None:
        if not isinstance(value, Mapping):
            raise ProbeError(f"{where} is not an object", f"send {{{', '.join(known)}}}")
        for name in value:
            if name not in known:
                fix = near(str(name), known) if known else "leave it out"
                raise ProbeError(f"{where} has an unknown member {shown(name)}", fix)
        self._value = value

    def __contains__(self, name: str) -> bool:
        return self._value.get(name) is not None

    def _get(self, name: str, kinds: tuple[type, ...], words: str) -> Any:
        value = self._value.get(name)
        # Also True is an int.
        if value is not None and type(value) not in kinds:
            raise ProbeError(f"{name} {shown(value)}: not {words}", f"give {name} as {words}")
        return value

    def need(self, name: str) -> None:
        """Raises ProbeError where a member is missing."""
        if name not in self:
            raise ProbeError(f"{name} is missing", f"give {name}")

    def flag(self, name: str) -> bool | None:
        """True or false."""
        value: bool | None = self._get(name, (bool,), "true or false")
        return value

    def number(self, name: str, check: Callable[[Any], float]) -> float | None:
        """A number that `check` takes."""
        value = self._get(name, (int, float), "a number")
        return None if value is None else self._checked(name, value, check)

    def value(self, name: str, kinds: tuple[type, ...], words: str, check: Any) -> Any:
        """A value of these types that `check` takes."""
        value = self._get(name, kinds, words)
        return None if value is None else self._checked(name, value, check)

    def text(self, name: str) -> str | None:
        """A text of bounded length."""
        value: str | None = self._get(name, (str,), "a text")
        if value is not None and len(value) > MOST_TEXT:
            raise ProbeError(f"{name}: longer than {MOST_TEXT} characters", "give less")
        return value

    def texts(self, name: str, most: int) -> list[str] | None:
        """A list of texts."""
        values = self._get(name, (list,), "a list of texts")
        if values is None:
            return None
        if len(values) > most:
            raise ProbeError(f"{name}: more than {most}", "give fewer")
        for value in values:
            if type(value) is not str or len(value) > MOST_TEXT:
                fix = f"give texts of up to {MOST_TEXT} characters"
                raise ProbeError(f"{name}: {shown(value)} is no text for it", fix)
        return list(dict.fromkeys(values))

    def raw(self, name: str) -> Any:
        """A value as it is."""
        return self._value.get(name)

    def _checked(self, name: str, value: Any, check: Callable[[Any], Any]) -> Any:
        try:
            return check(value)
        except OverflowError:
            raise ProbeError(f"{name}: too large a number", "give a smaller one") from None
        except ProbeError as error:
            raise ProbeError(f"{name} {shown(value)}: {error.why}", error.fix) from error
