# SPDX-License-Identifier: Apache-2.0
"""A page in a real browser: it sorts and filters, fetches nothing, and runs no hostile name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import Chromium, installed
from tests.pilot.fake import FakeSource
from tests.unit.hostile import EVIL, hostile_frames
from tui.app.offscreen import draw
from tui.export.write import export


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    """A browser; without one the tests are skipped."""
    if installed() is None:
        pytest.skip("chromium is not installed")
    with Chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of an ordinary machine's page."""
    source = FakeSource()
    source.latency = True
    frames = [source.frame() for _ in range(30)]
    path = tmp_path_factory.mktemp("page") / "a.html"
    export(frames, draw(frames), str(path))
    return path.as_uri()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the page of a machine on which every name is hostile."""
    frames = hostile_frames()
    path = tmp_path_factory.mktemp("hostile") / "a.html"
    export(frames, draw(frames), str(path))
    return path.as_uri()


COLUMN = """(name, at) => [...document.getElementById(name).parentNode
    .querySelectorAll(`h3[id="${name}"] ~ .scroll`)][0].querySelectorAll("tbody tr:not([hidden])")
    .values().map((row) => row.cells[at].textContent).toArray()"""


def column(browser: Chromium, table: str, at: int) -> list[str]:
    """The texts of a column, in the order of the rows that are shown."""
    found: list[str] = browser.run(f"({COLUMN})({table!r}, {at})")
    return found


def press(browser: Chromium, table: str, at: int) -> str:
    """Click on a column's name; how it is sorted after that."""
    script = f"""(() => {{
        const box = document.querySelector('h3[id="{table}"] ~ .scroll');
        const head = box.querySelectorAll("thead th")[{at}];
        head.querySelector("button").click();
        return head.getAttribute("aria-sort");
    }})()"""
    order: str = browser.run(script)
    return order


def type_filter(browser: Chromium, table: str, text: str) -> str:
    """Type into a table's filter; what it says of the rows."""
    script = f"""(() => {{
        const tools = document.querySelector('h3[id="{table}"] ~ .tools');
        const input = tools.querySelector("input");
        input.value = {text!r};
        input.dispatchEvent(new Event("input"));
        return tools.querySelector("span").textContent;
    }})()"""
    said: str = browser.run(script)
    return said


def test_tables_sort_by_number_and_by_text(browser: Chromium, page: str) -> None:
    browser.open(page)
    assert column(browser, "syscalls", 0)[:2] == ["futex", "read"]
    assert press(browser, "syscalls", 0) == "ascending"
    names = column(browser, "syscalls", 0)
    assert names == sorted(names)
    assert press(browser, "syscalls", 0) == "descending"
    assert column(browser, "syscalls", 0) == names[::-1]
    assert press(browser, "syscalls", 4) == "descending"
    assert column(browser, "syscalls", 0)[0] == "recvfrom"
    # A duration in us is less than one in ms, whatever the digits are.
    assert press(browser, "syscalls", 8) == "descending"
    slowest = column(browser, "syscalls", 8)
    assert slowest[0].endswith("ms")
    assert slowest[-1].endswith("us")


def test_values_that_nobody_knows_are_sorted_last(browser: Chromium, page: str) -> None:
    browser.open(page)
    for _ in range(2):
        press(browser, "targets", 4)
        assert column(browser, "targets", 4)[-1] == "-"


def test_tables_filter_while_one_types(browser: Chromium, page: str) -> None:
    browser.open(page)
    assert type_filter(browser, "syscalls", "ENOENT") == "3 of 24 rows"
    assert set(column(browser, "syscalls", 0)) == {"openat", "newfstatat", "execve"}
    assert type_filter(browser, "syscalls", "") == "24 rows"


def test_a_tree_is_flat_while_it_is_filtered(browser: Chromium, page: str) -> None:
    browser.open(page)
    flat = "document.querySelector('h3[id=\"execs\"] ~ .scroll table').classList.contains('flat')"
    assert browser.run(flat) is False
    type_filter(browser, "execs", "gcc")
    assert browser.run(flat) is True
    type_filter(browser, "execs", "")
    assert browser.run(flat) is False


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_fetched(browser: Chromium, page: str, scheme: str) -> None:
    browser.media(scheme=scheme)
    browser.open(page)
    browser.run("new Promise((done) => setTimeout(done, 300))")
    outside = [url for url in browser.requests() if not url.startswith("data:")]
    assert outside == [page]
    assert browser.complaints() == []
    assert browser.run("document.querySelector('.screen img').clientWidth") > 500
    colours = {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 20, 23)"}
    assert browser.run("getComputedStyle(document.body).backgroundColor") == colours[scheme]


def test_the_policy_stops_what_is_put_into_the_page(browser: Chromium, page: str) -> None:
    browser.open(page)
    browser.run("""new Promise((done) => {
        const script = document.createElement("script");
        script.textContent = "window.pwned = 1";
        document.body.append(script);
        const image = document.createElement("img");
        image.onerror = () => done();
        image.src = "http://127.0.0.1:9/x.png";
        document.body.append(image);
    })""")
    assert browser.run("typeof window.pwned") == "undefined"
    assert len([text for text in browser.complaints() if "Content Security Policy" in text]) == 2


def test_hostile_names_run_nothing_and_are_shown(browser: Chromium, hostile: str) -> None:
    browser.open(hostile)
    assert browser.run("typeof window.pwned") == "undefined"
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [hostile]
    assert browser.run("document.scripts.length") == 2
    assert browser.run("document.images.length") == 1
    calls = column(browser, "syscalls", 0)
    for text in EVIL[:7]:
        assert text in calls
    data = "JSON.parse(document.getElementById('probetop-data').textContent)"
    known: list[str] = browser.run(f"{data}.probes.syscalls.rows.map((row) => row.syscall)")
    assert set(EVIL[:9]) <= set(known)


def test_without_scripts_everything_is_there(browser: Chromium, page: str) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        assert browser.call("DOM.enable") == {}
        root = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]

        def count(selector: str) -> int:
            found: list[Any] = browser.call("DOM.querySelectorAll", nodeId=root, selector=selector)[
                "nodeIds"
            ]
            return len(found)

        assert count("button") == count("input") == 0
        assert count("table.data") == 10
        assert count("tbody tr") > 300
        assert count("svg title") > 1000
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_it_prints_whole_tables_without_what_only_a_screen_has(
    browser: Chromium, page: str, tmp_path: Path
) -> None:
    browser.media(kind="print", scheme="dark")
    browser.open(page)
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    cut = "[...document.querySelectorAll('.scroll')].some((e) => e.scrollHeight > e.clientHeight)"
    assert browser.run(cut) is False
    browser.pdf(tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    browser.media()
