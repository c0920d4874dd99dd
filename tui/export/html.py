# SPDX-License-Identifier: Apache-2.0
"""A summary as one HTML file that fetches nothing: tables, graphs, the screen and the data.

The template engine escapes every value, and `tui.shared.text.safe` makes of what cannot be seen
(control characters, right-to-left marks) visible escapes before. The page's policy forbids every
request, and any script or style but its own two, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from probes.report.stream import dumps
from probes.report.summary import Summary
from tui.export import graphs
from tui.export.section import Section, digits
from tui.export.tables import Column, number, table, text
from tui.export.words import duration, stamp
from tui.registry import REGISTRY
from tui.shared.text import UNKNOWN, fmt_count, fmt_ns, fmt_within, safe

DATA_ID = "probetop-data"
HERE = Path(__file__).parent


def _visible(value: Any) -> Any:
    """A value for the page: nothing in it is invisible or turns the text round."""
    return safe(value) if type(value) is str else value


def _short(value: float) -> str:
    """A number to sort by, in as few characters as six digits need."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@cache
def environment() -> Environment:
    """The template engine; it escapes whatever is not Markup."""
    env = Environment(
        autoescape=True,
        loader=DictLoader({"page.html": (HERE / "page.html").read_text("utf-8")}),
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["short"] = _short
    return env


@cache
def _inlined(name: str) -> tuple[Markup, str]:
    """A file of this folder as it stands in the page, and its hash for the policy."""
    content = (HERE / name).read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return Markup(content), f"'sha256-{digest}'"


def preload() -> None:
    """Read all of this folder's files: later they may be out of reach."""
    environment().get_template("page.html")
    _inlined("page.css")
    _inlined("page.js")
    for entry in REGISTRY:
        entry.fill_section()


def embedded(summary: Mapping[str, Any]) -> Markup:
    """JSON for a script element: nothing in it can end that."""
    line = dumps(summary)
    for char in "<>&":
        line = line.replace(char, f"\\u{ord(char):04x}")
    return Markup(line)


def render(
    sections: Sequence[Section],
    data: Mapping[str, Any],
    *,
    title: str,
    heading: str,
    subheading: str,
    facts: Sequence[tuple[str, str]],
    said: Sequence[tuple[str, str]],
    screen_svg: str | None = None,
) -> str:
    """The page."""
    css, css_hash = _inlined("page.css")
    js, js_hash = _inlined("page.js")
    screen = None
    if screen_svg is not None:
        encoded = base64.b64encode(screen_svg.encode("utf-8", "replace")).decode()
        screen = f"data:image/svg+xml;base64,{encoded}"
    box = {
        "width": graphs.WIDTH, "height": graphs.HEIGHT, "left": graphs.LEFT,
        "right": graphs.WIDTH - graphs.RIGHT, "top": graphs.TOP, "tall": graphs.TALL,
    }  # fmt: skip
    page = environment().get_template("page.html").render(
        csp=f"default-src 'none'; script-src {js_hash}; style-src {css_hash}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        css=css, js=js, data=embedded(data), version=data.get("probetop", "?"), box=box,
        title=title, heading=heading, subheading=subheading, facts=facts, said=said,
        sections=sections, screen=screen,
    )  # fmt: skip
    return page.lstrip() + "\n"


def snapshot_page(summary: Summary, screen_svg: str | None) -> str:
    """The page of one run."""
    host = summary["host"]
    return render(
        snapshot_sections(summary),
        summary,
        title=f"probetop: {host}, {stamp(summary['end'])}",
        heading=host,
        subheading=f"what its kernel did in {duration(summary['seconds'])}",
        facts=facts_of(summary),
        said=losses(summary),
        screen_svg=screen_svg,
    )


def facts_of(summary: Summary) -> list[tuple[str, str]]:
    """What the run was, for the head of a page."""
    load = summary["load"]
    filters = " ".join([f"{k}={v}" for k, v in summary["filters"].items()])
    return [
        ("kernel", f"{summary['release']} {summary['arch']}"),
        ("CPUs", str(summary["cpus"])),
        ("load", "-" if load is None else f"{load:.2f}"),
        ("from", stamp(summary["begin"])),
        ("to", stamp(summary["end"])),
        ("length", f"{duration(summary['seconds'])}, {summary['frames']} readings"),
        ("interval", f"{summary['interval']:g} s"),
        ("counted", filters or "everything (no filter)"),
        ("probetop", summary["probetop"]),
    ]


def losses(summary: Summary) -> list[tuple[str, str]]:
    """What is incomplete, one line each with a style; one that says so when nothing is."""
    out: list[tuple[str, str]] = []
    for entry in REGISTRY:
        probe = summary["probes"].get(entry.name)
        if probe is None:
            continue
        if _stands(probe) == "detached":
            out.append(("warn", f"{entry.title}: {probe['why']}; {probe['fix']}."))
        elif probe["state"] == "failed":
            out.append(("bad", f"{entry.title} failed: {probe['why']}; {probe['fix']}."))
        if probe["lost"]:
            out.append(("bad", f"{entry.title}: {probe['lost']} events were lost."))
        out += [("warn", f"{entry.title}: {words}") for words in _gaps(probe)]
        out += [("warn", f"{entry.title}: {note}") for note in probe["notes"]]
    if summary["filters_changed"]:
        out.append(("warn", "The filters were changed meanwhile; those at the end are shown."))
    out += [("warn", words) for words in _gone(summary.get("notices", ()))]
    if not any(style == "bad" for style, _ in out):
        out.insert(0, ("good", "No event was lost."))
    return out


def _gone(notices: Sequence[Mapping[str, Any]]) -> list[str]:
    """What became of the process and the cgroup that the filter names."""
    words = {
        "process_ended": "The filtered process {pid} ({comm}) ended at {at}.",
        "cgroup_removed": "The filtered cgroup {cgroup} was removed at {at}.",
        "pid_of_namespace": "The filtered process {pid} ({comm}) is one of the pid namespace"
        " that the probes ran in; rows have the machine's pids.",
        "cgroup_followed": "The filtered cgroup {cgroup} was made again at {at}, and is counted.",
    }
    return [
        words[notice["kind"]].format(**{**notice, "at": stamp(notice["time"])}) + _missed(notice)
        for notice in notices
        if notice["kind"] in words
    ]


def _missed(notice: Mapping[str, Any]) -> str:
    seconds = notice.get("seconds")
    return "" if seconds is None else f" Up to {fmt_ns(seconds * 1e9)} before are not counted."


def _gaps(probe: Mapping[str, Any]) -> list[str]:
    """What a probe could not tell, or took a sample of."""
    out = [
        f"the file of {target['spec']} was {target['file']} on disk."
        for target in probe.get("targets") or ()
        if target.get("file") in ("replaced", "deleted")
    ]
    out += _estimates(probe)
    if probe.get("unattributed"):
        out.append(
            f"{fmt_count(probe['unattributed'])} calls are of processes beyond the table's room."
        )
    if probe.get("untimed"):
        out.append(f"{fmt_count(probe['untimed'])} calls could not be timed.")
    if (probe.get("sample_every") or 1) > 1:
        out.append(f"1 call in {probe['sample_every']} was timed.")
    if probe.get("dropped"):
        out.append(f"{probe['dropped']} events were too many to keep.")
    scaled = [f"{event} {share:.0%}" for event, share in (probe.get("shares") or {}).items()
              if share is not None and share < 0.995]  # fmt: skip
    if scaled:
        out.append(f"events that shared counters are scaled; counted for: {', '.join(scaled)}.")
    if probe.get("reason"):
        out.append(f"{probe['reason']}.")
    return out


def _estimates(probe: Mapping[str, Any]) -> list[str]:
    """For how long a probe was attached in bursts, and what of its counts those stand for."""
    duty = probe.get("duty")
    if duty is None:
        return []
    words = (
        f"for {duration(duty['seconds'])} it was attached in bursts ({duty['bursts']} of them,"
        f" {duration(duty['on'])} in all)"
    )
    if not probe.get("estimated"):
        return [f"{words}."]
    told = f"~{fmt_count(probe['estimated'])} of the calls are estimates"
    if probe["error"] is None:
        return [f"{words}, {told} (bursts differ too much to tell how far off)."]
    off = fmt_within(probe["error"] * duty["factor"], probe["estimated"])
    return [f"{words}, {told} (± {off})."]


def _bytes(value: float | None) -> str:
    return UNKNOWN if value is None else f"{fmt_count(value)}B"


def _stands(probe: Mapping[str, Any]) -> str:
    """The state in a word: what was detached to stay within the budget has not failed."""
    held = probe["state"] == "failed" and probe.get("given_up") is not None
    return "detached" if held else str(probe["state"])


def _overview(summary: Summary) -> Section:
    probes = {e.title: summary["probes"][e.name] for e in REGISTRY if e.name in summary["probes"]}
    rows = [
        {"title": title, "stands": _stands(probe), "how": ", ".join(probe["mechanisms"]),
         **probe, **probe["cost"]}
        for title, probe in probes.items()
    ]  # fmt: skip
    columns: list[Column] = [
        text("probe", "title"),
        text("state", "stands", "at the end"),
        text("how", "how", "the kernel's mechanisms"),
        number("ran s", "seconds", "for how long it counted", digits("{:.4g}")),
        number("events", "events", "its programs ran so often"),
        number("lost", "lost", "events that could not be handed over", style="bad"),
        number("ns/event", "ns_per_event", "one run of its programs", digits("{:.0f}")),
        number("% of a CPU", "cpu_percent", "its share, while measured", digits("{:.3g}")),
        number("kernel memory", "map_bytes", "bytes of its maps", _bytes),
    ]  # fmt: skip
    return Section(
        "probes",
        "Probes",
        tables=[table("probe-table", "What was on, what it cost", columns, rows)],
    )


def snapshot_sections(summary: Summary) -> list[Section]:
    """The parts of a snapshot, in the order of the panes."""
    out = [_overview(summary)]
    for entry in REGISTRY:
        probe = summary["probes"].get(entry.name)
        if probe is None:
            continue
        section = Section(entry.name, entry.title)
        if probe["seconds"] is None:
            section.words.append(f"It was {_stands(probe)}.")
        else:
            entry.fill_section()(summary, probe, section)
        out.append(section)
    return out
