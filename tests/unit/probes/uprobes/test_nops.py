# SPDX-License-Identifier: Apache-2.0
"""Probes keep away from 5-byte nops where this kernel makes calls of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.latency.planner import wish
from probes.symbols.binaries import places
from probes.symbols.target_spec import parse
from probes.uprobes import harm_trials, nops
from tests.unit.elf_file import CODE_AT, FUNC, GLOBAL, ElfFile, Row, usdt_note

pytestmark = pytest.mark.skipif(kernel.arch() != "x86_64", reason="nops of x86_64")
NOP5 = harm_trials.NOP5


@pytest.fixture
def path(tmp_path: Path) -> str:
    """`f` begins with such a nop and has a second one, `g` begins with another instruction."""
    rows: list[Row] = [("f", FUNC, GLOBAL, 0, 16), ("g", FUNC, GLOBAL, 0x20, 16)]
    code = NOP5 + b"\x55" + NOP5 + b"\x5d\xc3" + b"\x90" * 19 + b"\x55\x5d\xc3"
    file = tmp_path / "file"
    file.write_bytes(ElfFile(symtab=rows, code=code, notes=usdt_note("p", "n", 6)).build())
    return str(file)


def kernel_that(monkeypatch: pytest.MonkeyPatch, *, calls: bool, crashes: bool) -> None:
    monkeypatch.setattr(harm_trials, "turns_nops_into_calls", lambda: calls)
    monkeypatch.setattr(harm_trials, "harmless", lambda trial: not crashes)


def offsets(path: str, symbol: str) -> set[int]:
    made = wish(f"uprobe:{path}:{symbol}", 0)
    return {one.offset - CODE_AT for one in made.attach if one.path}


def test_a_function_is_probed_behind_its_nop(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_that(monkeypatch, calls=True, crashes=True)
    assert offsets(path, "f") == {5}
    assert offsets(path, "g") == {0x20}
    assert [one.offset - CODE_AT for one in nops.behind(places(parse(f"u:{path}:?")))] == [5, 0x20]
    kernel_that(monkeypatch, calls=True, crashes=False)
    assert offsets(path, "f") == {0}


def test_a_nop_inside_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_that(monkeypatch, calls=True, crashes=True)
    for text in (f"uprobe:{path}:f+6", f"usdt:{path}:p:n"):
        with pytest.raises(ProbeError, match="is a 5-byte nop, which this kernel makes a call of"):
            wish(text, 0)
    assert offsets(path, "f+5") == {5}
    kernel_that(monkeypatch, calls=False, crashes=False)
    assert offsets(path, "f+6") == {6}
    assert wish(f"usdt:{path}:p:n", 0).attach
