# SPDX-License-Identifier: Apache-2.0
"""What a probe measures, declared once: whoever shows, compares or exposes it reads this.

A Schema belongs to a Sample class. Its tables tell which columns rows of a stream object have, and
what kind of number each is. A table that names the `field` of the Sample from which it is made
needs no other code: `probes.core.tables` makes differences and rows of it, `probes.sums.table_sum`
sums; it is in streams, snapshots, HTML pages, series, `diff` and the metrics of the agent. A table
without a `field` has rows that the probe's own code makes.

This module imports nothing of the program, so that Sample classes can refer to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Unit = Literal["", "ns", "bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyColumn:
    """A column that tells rows apart: its name in a row, and the title of a column of it.

    A `process` is the number of a process (see `probes.core.process_keys`): rows have its `pid` and
    `comm`.
    """

    name: str
    title: str = ""
    process: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureColumn:
    """A number of a row: its name there, its kind and unit, a column's title and its meaning.

    A counter is cumulative in a Sample and of the interval in a row; a gauge is what it is now. The
    only measure of a table may be a histogram of durations, or of values if it has no unit: rows
    have their number by its name, and p50, p99, max and total.
    """

    name: str
    kind: Kind = "counter"
    unit: Unit = ""
    title: str = ""
    help: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSchema:
    """Rows of a stream object: `name` is their list there, `title` heads them on a page.

    `field` names the Sample's mapping: its keys are those of `key`, a tuple of them if there are
    several; its values are the measure, or a NamedTuple of the measures in this order. `comms`
    names the Sample's mapping from processes to names. `estimated` names a mapping from the same
    keys to an Estimate (see `probes.core.estimates`): what bursts stand for of the first measure,
    which is never part of the exact one. `item` is one row in a word, for comparisons.

    A summary has as many rows as its limit of the name `limit` says (see
    `probes.sums.summary_limits`), and of the others what their columns `summed` add up to (None:
    all counters).
    """

    name: str
    title: str = ""
    item: str = ""
    key: tuple[KeyColumn, ...] = ()
    measures: tuple[MeasureColumn, ...] = ()
    field: str = ""
    comms: str = ""
    estimated: str = ""
    limit: str = "processes"
    summed: tuple[str, ...] | None = None

    @property
    def sums(self) -> tuple[str, ...]:
        """The columns of which a summary tells what rows that it leaves out add up to."""
        if self.summed is not None:
            return self.summed
        return tuple([one.name for one in self.measures if one.kind != "gauge"])


# -- rates over time, see `probes.report.timeseries`
# -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class RateLine:
    """A count (see `probes.sums.accumulators.Tick`) per second.

    An `optional` one is left out where it is all zero.
    """

    name: str
    optional: bool = False
    title: str = ""


@dataclass(frozen=True, slots=True)
class RatioLine:
    """A count in relation to the sum of some counts."""

    name: str
    part: str
    whole: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpreadLines:
    """For each item that has durations: its calls per second, p50 and p99."""


Line = RateLine | RatioLine | SpreadLines


# -- what `diff` compares ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A column's rate per second; `scale` divides it, `weight` is how important a change is.

    `error` is the column of its standard error, or of a mapping from columns to theirs. It is not
    compared where the probe's object has a
    field called `unless` that is not None. `percent` says that it is one of a CPU.
    """

    quantity: str
    field: str
    error: str = ""
    scale: float = 1.0
    weight: float = 1.0
    unless: str = ""
    percent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """A column with a percentile of durations, in ns, of as many calls as column `of` says."""

    quantity: str
    field: str
    of: str = "count"
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The sum of one column over that of some columns, of the rows with one item's name.

    It rests on the events of column `events`, and is known where all columns are; a whole below
    `least` is taken for nothing.
    """

    quantity: str
    part: str
    whole: tuple[str, ...]
    events: str
    least: float = 0.0
    weight: float = 1.0
    percent: bool = False


Figure = Rate | Percentile | Ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRows:
    """What is compared of the rows of a list in the probe's object of a summary.

    `what` is a row in a word; a row's name is in column `item`, or is `all_items` for all of them
    as one. Rows whose column `needs` is None are passed over. Where it `closes` and no row was left
    out, what has no row counted nothing. `duty` names the field with the bursts, which is the row's
    or else the probe's.
    """

    table: str
    what: str
    item: str = ""
    all_items: str = ""
    needs: str = ""
    closes: bool = True
    duty: str = ""
    figures: tuple[Figure, ...] = ()


IN_BURSTS = "{run} measured {title} in bursts for {length}: figures with a ~ are estimates."


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """All that is declared of a probe. `title` is its name in the middle of a sentence.

    `lines` are its series and `figures` what is compared, both made of the tables where they are
    None. `duties` names fields of its object, other than those of figures, that tell of bursts.
    `in_bursts` is the warning of a comparison with what bursts saw. `sum_path` is
    "module:SampleSum class" for a probe whose Samples are not added up by its tables alone, and
    `records_path` "module:Counted class" for one whose recordings are added up without Frames.
    `heavy` are large fields of the Sample that only tables are made of: what is drawn over time
    does without. `spreads` are mappings to histograms, or to what has one, other than tables'.
    """

    title: str = ""
    tables: tuple[TableSchema, ...] = ()
    lines: tuple[Line, ...] | None = None
    figures: tuple[ComparedRows, ...] | None = None
    duties: tuple[str, ...] = ()
    in_bursts: str = IN_BURSTS
    sum_path: str = ""
    records_path: str = ""
    heavy: tuple[str, ...] = ()
    spreads: tuple[str, ...] = ()

    def made(self) -> tuple[TableSchema, ...]:
        """The tables that are made of fields of the Sample."""
        return tuple([table for table in self.tables if table.field])

    def with_buckets(self) -> tuple[str, ...]:
        """Fields of the Sample whose values are, or hold, histograms."""
        tables = [one.field for one in self.made() if one.measures[0].kind == "histogram"]
        return (*self.spreads, *tables)

    def all_lines(self) -> Sequence[Line]:
        """The series: the declared ones, else a rate of each counter, and what is estimated."""
        if self.lines is not None:
            return self.lines
        counters = [m for table in self.made() for m in table.measures if m.kind != "gauge"]
        names = dict.fromkeys([measure.name for measure in counters])
        lines: list[Line] = [RateLine(name) for name in names]
        if any(table.estimated for table in self.made()):
            lines.append(RateLine("estimated", optional=True))
        return lines

    def all_figures(self) -> Sequence[ComparedRows]:
        """What is compared: the declared, else a rate of each counter of each table."""
        if self.figures is not None:
            return self.figures
        return [_figures(table) for table in self.made()]


def _figures(table: TableSchema) -> ComparedRows:
    """A table's rates and percentiles, by what tells its rows apart best: the last key."""
    last = table.key[-1]
    compared: list[Figure] = []
    for measure in table.measures:
        if measure.kind == "gauge":
            continue
        first = measure is table.measures[0]
        error = "error" if table.estimated and first else ""
        compared.append(Rate(quantity=f"{measure.name}/s", field=measure.name, error=error))
        if measure.kind == "histogram":
            compared.append(Percentile(quantity="p50", field="p50", of=measure.name, weight=1.5))
            compared.append(Percentile(quantity="p99", field="p99", of=measure.name, weight=2.0))
    return ComparedRows(
        table=table.name,
        what=table.item or last.name,
        item="comm" if last.process else last.name,
        duty="duty" if table.estimated else "",
        figures=tuple(compared),
    )
