# SPDX-License-Identifier: Apache-2.0
"""Files for other people: what is in them, that nothing acts, that none is left half written."""

from __future__ import annotations

import base64
import errno
import gc
import html.parser
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from probes.core.errors import ProbeError
from probes.core.frame import Filters, Frame, Notice
from probes.core.sample import Sample
from probes.execs.sample import ExecEvent, ExecSample
from tests.paths import ROOT
from tests.pilot.fake import FakeSource
from tests.unit.hostile import EVIL, hostile_frames
from tui.app.offscreen import draw
from tui.export import write
from tui.export.html import snapshot_page
from tui.export.write import MOST_BYTES, content, export, new_summarizer, write_file


@pytest.mark.parametrize("comm", ["@font-face{", "font-family:", "font-family:x;", "terminal-12"])
def test_a_name_that_is_like_the_pictures_style_stays_what_it_is(comm: str) -> None:
    source = FakeSource()
    frames = []
    for number in range(3):
        frame = source.frame()
        samples = {**frame.samples, "execs": named(frame.samples["execs"], comm)}
        frames.append(replace(frame, mono=1000.0 + number, samples=samples))
    svg = draw(frames)
    text = "".join(ElementTree.fromstring(svg).itertext()).replace("\xa0", " ")
    assert comm in text


def named(sample: Sample, comm: str) -> Sample:
    """Executions by processes of this name."""
    assert isinstance(sample, ExecSample)
    events = [
        replace(e, comm=comm, args=(comm, "a")) if isinstance(e, ExecEvent) else e
        for e in sample.events
    ]
    return replace(sample, events=tuple(events))


class Tags(html.parser.HTMLParser):
    """What a page consists of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(frames: list[Frame], screen: str | None = None) -> str:
    summarizer = new_summarizer()
    for frame in frames:
        summarizer.add(frame)
    return snapshot_page(summarizer.summary(), screen)


@pytest.fixture(scope="module")
def hostile() -> str:
    """The page of a hostile machine."""
    return page_of(hostile_frames())


def test_the_page_holds_the_summary_as_json() -> None:
    source = FakeSource()
    frames = [source.frame() for _ in range(5)]
    summarizer = new_summarizer()
    for frame in frames:
        summarizer.add(frame)
    page = page_of(frames)
    (data,) = re.findall(r'<script type="application/json" id="probetop-data">(.*?)</script>', page)
    assert json.loads(data) == json.loads(content(summarizer, ".json", None))


def test_only_its_own_elements_are_in_the_page(hostile: str) -> None:
    found = Tags(hostile)
    scripts = [attributes for tag, attributes in found.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "probetop-data"}, {}]
    known = (
        "html head meta title link style body header h1 small dl div dt dd p nav a section h2 h3 "
        "table thead tr th tbody td figure figcaption b span svg path text rect footer script"
    )
    assert {tag for tag, _ in found.tags} <= set(known.split())
    for _, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    links = {a.get("href") or a.get("src") for _, a in found.tags} - {None}
    assert all(str(link).startswith(("#", "data:,")) for link in links)


def test_nothing_in_the_page_is_invisible_or_turns_text_round(hostile: str) -> None:
    assert hostile.isprintable() or set(hostile) & set("\x00\x1b\x07\r") == set()
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b-\u200f\ufeff\ud800-\udfff]", hostile)
    text = "".join(Tags(hostile).text)
    assert "\\u202egnp.exe" in text
    assert "<script>window.pwned=1</script>" in text
    assert "{{ 7 * 7 }}" in text


def test_the_policy_names_the_hashes_of_its_script_and_style(hostile: str) -> None:
    (policy,) = [
        attributes["content"]
        for tag, attributes in Tags(hostile).tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/]{43}='", policy)) == 2


def test_the_picture_is_xml_that_asks_nobody_for_anything() -> None:
    svg = draw(hostile_frames())
    for element in ElementTree.fromstring(svg).iter():
        assert element.tag.rpartition("}")[2] in ("svg", "style", "defs", "clipPath", "rect",
                                                  "text", "g", "circle")  # fmt: skip
        assert not [value for value in element.attrib.values() if "http" in value]
    assert "font-face" not in svg
    assert "url(http" not in svg
    assert "@import" not in svg
    assert "System" in svg
    page = page_of(hostile_frames(), svg)
    (source,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', page)
    assert base64.b64decode(source).decode() == svg


@pytest.mark.parametrize("ending", [".html", ".json"])
def test_a_busy_minute_is_below_a_megabyte(ending: str) -> None:
    source = FakeSource()
    source.latency = True
    source.latencies.add("uprobe:libc:free")
    summarizer = new_summarizer()
    for spoiled in hostile_frames(61):
        summarizer.add(spoiled)
    size = len(content(summarizer, ending, "x" * 100_000).encode())
    assert 100_000 < size <= MOST_BYTES


def test_the_ending_decides(tmp_path: Path) -> None:
    frames = hostile_frames(3)
    assert export(frames, "<svg/>", str(tmp_path / "a.html")) > 1000
    assert export(frames, "<svg/>", str(tmp_path / "a.SVG")) == 6
    export(frames, None, str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text())["summary"] == 1
    with pytest.raises(ProbeError, match=r"\.html, \.json or \.svg"):
        export(frames, None, str(tmp_path / "a.txt"))
    with pytest.raises(ProbeError, match="nothing to export yet"):
        export(frames[:1], None, str(tmp_path / "b.html"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.SVG", "a.html", "a.json"]


def test_no_garbage_is_looked_for_while_frames_are_decoded(tmp_path: Path) -> None:
    collects: list[bool] = []

    def decoded() -> Iterator[Frame]:
        for frame in hostile_frames(3):
            collects.append(gc.isenabled())
            yield frame

    export(decoded(), None, str(tmp_path / "a.json"))
    assert collects == [False] * 3
    assert gc.isenabled()


def test_files_are_for_their_owner_and_replace_nothing_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert write_file(str(path), "one") == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ProbeError, match="exists already"):
        write_file(str(path), "two")
    assert path.read_text() == "one"
    write_file(str(path), "two", force=True)
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("force", [False, True])
def test_a_symbolic_link_is_never_followed(tmp_path: Path, force: bool) -> None:
    target, link = tmp_path / "target", tmp_path / "a.json"
    target.write_text("precious")
    link.symlink_to(target)
    with pytest.raises(ProbeError, match="exists already"):
        write_file(str(link), "evil", force)
    assert (target.read_text(), link.is_symlink()) == ("precious", True)


@pytest.mark.parametrize("force", [False, True])
def test_a_full_disk_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    path = tmp_path / "a.json"
    if force:
        path.write_text("before")
    real = os.write
    written: list[int] = []

    def full(fd: int, data: bytes) -> int:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(real(fd, data[:4]))
        return written[0]

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ProbeError, match=r"a\.json: No space left on device") as raised:
        write_file(str(path), "a long text", force)
    assert "\n" not in str(raised.value)
    assert [p.read_text() for p in tmp_path.iterdir()] == (["before"] if force else [])


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="No such file or directory: check the path"):
        write.check_folder(str(tmp_path / "no" / "a.html"))
    assert len(EVIL) > 10


def test_a_dashboard_does_not_load_what_only_an_export_needs() -> None:
    program = (
        "import sys, tui.app.app, tui.commands.snapshot\n"
        "for entry in tui.app.app.REGISTRY: entry.pane_class()\n"
        "print(*sorted(sys.modules.keys() & {'jinja2', 'tui.export.html', 'tui.export.picture'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("\n", "")


def test_what_has_gone_is_told() -> None:
    source = FakeSource()
    first = source.frame()
    source.latencies.mark("uprobe:libc:malloc", "replaced")
    gone = (
        Notice("process_ended", 1.7e9, 4242, EVIL[0] + "{pid}"),
        Notice("cgroup_removed", 1.7e9, cgroup="/a"),
        Notice("of a newer version", 1.7e9),
    )
    last = replace(source.frame(), filters=Filters(pid=4242), notices=gone)
    page = page_of([first, last])
    told = "".join(Tags(page).text)
    assert "The filtered process 4242 (" in told
    assert EVIL[0] not in page
    assert EVIL[0] + "{pid}" in told
    assert "The filtered cgroup /a was removed at 2023-11-14 " in told
    assert "the file of uprobe:libc:malloc was replaced on disk." in told
    assert "The filtered" not in "".join(Tags(page_of([first])).text)
