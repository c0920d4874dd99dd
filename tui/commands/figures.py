# SPDX-License-Identifier: Apache-2.0
"""The figures of a run that `diff` compares, as the schemas of the probes declare them.

Of a probe's object in a summary only what is compared is decoded, into types that are made of
the declarations: a file that has anything else there is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct, defstruct

from probes.core.estimates import student
from probes.core.schema import ComparedRows, Percentile, Rate, Ratio, Schema

TINY = 1e-9
"""Nothing is divided by what is smaller."""
MANY = student(1_000)
"""What the standard error of many bursts is multiplied by, for an interval of confidence."""

Number = Annotated[float, Meta(ge=-(2.0**100), le=2.0**100)]
NotNegative = Annotated[float, Meta(ge=0.0, le=2.0**100)]
Text = Annotated[str, Meta(max_length=100_000)]
Errors = Annotated[dict[Text, NotNegative | None], Meta(max_length=200)]
"""Standard errors by column; None for what bursts do not tell."""
Others = Annotated[dict[str, dict[str, Number | None]], Meta(max_length=100)]


class Figure(NamedTuple):
    """A number of a run: a rate, a percentile or a ratio, and how many events it rests on.

    `error` is the standard error of the events, as far as they are estimated from bursts.
    """

    value: float
    events: float
    error: float = 0.0


class Key(NamedTuple):
    """What a figure is of: "syscall", "read", "errors/s"."""

    what: str
    item: str
    quantity: str


class _Duty(Struct):
    seconds: NotNegative
    factor: NotNegative


def probe_type(name: str, schema: Schema) -> type[Struct]:
    """The type of what is compared of the probe's object in a summary."""
    fields: dict[str, Any] = {
        "seconds": (Number | None, None),
        "others": (Others, {}),
        **dict.fromkeys(schema.duties, (_Duty | None, None)),
    }
    for figures in schema.all_figures():
        if figures.duty:
            fields[figures.duty] = (_Duty | None, None)
        row = _row_type(f"{name}_{figures.table}", figures)
        fields[figures.table] = (list[row] | None, None)  # type: ignore[valid-type]
    return defstruct(name, [(field, *about) for field, about in fields.items()], kw_only=True)


def _row_type(name: str, figures: ComparedRows) -> type[Struct]:
    """The type of a row: the columns that its figures need."""
    columns: dict[str, tuple[Any, ...]] = {}
    for one in figures.figures:
        if isinstance(one, Ratio):
            for column in (one.part, *one.whole, one.events):
                columns.setdefault(column, (Number | None, None))
    for one in figures.figures:
        if isinstance(one, Percentile):
            columns[one.field] = (Number | None, None)
        elif isinstance(one, Rate):
            columns[one.field] = (NotNegative,)
            if one.error:
                columns[one.error] = (NotNegative | Errors | None, 0.0)
    if figures.needs:
        columns[figures.needs] = (NotNegative | None, None)
    if figures.item:
        columns[figures.item] = (Text | int,)
    if figures.duty:
        columns[figures.duty] = (_Duty | None, None)
    return defstruct(name, [(column, *about) for column, about in columns.items()], kw_only=True)


Found = dict[Key, Figure]


def figures_of(probe: Any, schema: Schema) -> Found:
    """What is compared of a probe's object that was decoded as `probe_type` has it."""
    found: Found = {}
    for figures in schema.all_figures():
        rows = getattr(probe, figures.table) or ()
        if figures.needs:
            rows = [row for row in rows if getattr(row, figures.needs) is not None]
        for one in figures.figures:
            if isinstance(one, Ratio):
                _ratios(found, figures, one, rows)
            elif isinstance(one, Percentile):
                _percentiles(found, figures, one, rows)
            elif not one.unless or getattr(probe, one.unless) is None:
                _rates(found, figures, one, rows, probe)
    # Nothing is divided by what is next to nothing.
    return {
        key: figure if figure.value >= TINY else figure._replace(value=0.0)
        for key, figure in found.items()
        if isfinite(figure.value)
    }


def closed_of(probe: Any, schema: Schema) -> set[str]:
    """Of what kinds of items all are there: those that have no row counted nothing."""
    return {
        figures.what
        for figures in schema.all_figures()
        if figures.closes and figures.table not in probe.others
    }


def estimated_of(probe: Any, schema: Schema) -> float:
    """For how many seconds the probe was attached in bursts; 0.0 where it was not."""
    duties: list[_Duty | None] = [getattr(probe, name) for name in schema.duties]
    for figures in schema.all_figures():
        if figures.duty:
            rows = getattr(probe, figures.table) or ()
            duties += [getattr(one, figures.duty) for one in (probe, *rows)]
    return max([one.seconds for one in duties if one is not None], default=0.0)


def _item(figures: ComparedRows, row: Any) -> str:
    return str(getattr(row, figures.item)) if figures.item else figures.all_items


def _rates(found: Found, figures: ComparedRows, one: Rate, rows: Sequence[Any], probe: Any) -> None:
    """Rates of one column; those of the same name (processes) are added up."""
    for row in rows:
        count = getattr(row, one.field)
        error = getattr(row, one.error) if one.error else 0.0
        if isinstance(error, dict):
            error = error.get(one.field, 0.0)
        if figures.duty:
            duty = getattr(row, figures.duty) or getattr(probe, figures.duty)
            error = _error(count, error, duty)
        key = Key(figures.what, _item(figures, row), one.quantity)
        count, error = count / one.scale, error / one.scale
        old = found.get(key, Figure(0.0, 0.0))
        found[key] = Figure(
            old.value + count / probe.seconds, old.events + count, old.error + error
        )


def _error(count: float, error: float | None, duty: _Duty | None) -> float:
    """A standard error as it were of many bursts: that of few is uncertain itself.

    One that is not known is taken to be as large as the count.
    """
    if duty is None:
        return 0.0
    return (count if error is None else error) * max(1.0, duty.factor / MANY)


def _percentiles(found: Found, figures: ComparedRows, one: Percentile, rows: Sequence[Any]) -> None:
    for row in rows:
        value = getattr(row, one.field)
        if value is not None:
            events = getattr(row, one.of) or 0.0
            found[Key(figures.what, _item(figures, row), one.quantity)] = Figure(
                max(0.0, value), events
            )


def _ratios(found: Found, figures: ComparedRows, one: Ratio, rows: Sequence[Any]) -> None:
    sums: dict[str, list[float]] = {}
    for row in rows:
        part, whole = getattr(row, one.part), [getattr(row, name) for name in one.whole]
        events = getattr(row, one.events)
        if part is None or events is None or None in whole or not sum(whole):
            continue
        total = sums.setdefault(_item(figures, row), [0.0, 0.0, 0.0])
        for at, value in enumerate((part, sum(whole), events)):
            total[at] += value
    for item, (part, whole_sum, events) in sums.items():
        if whole_sum > 0 and whole_sum >= one.least:
            value = (100 if one.percent else 1) * part / whole_sum
            found[Key(figures.what, item, one.quantity)] = Figure(value, events)


def declared(schemas: Mapping[str, Schema]) -> dict[tuple[str, str], Rate | Percentile | Ratio]:
    """All figures, by what they are of and their quantity."""
    return {
        (figures.what, one.quantity): one
        for schema in schemas.values()
        for figures in schema.all_figures()
        for one in figures.figures
    }
