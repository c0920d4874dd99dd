# SPDX-License-Identifier: Apache-2.0
"""Bytes of processes as text: always UTF-8, and the same bytes again."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.bpf.row_table import name_of_comm
from probes.core.safe_text import escaped, raw_of, readable
from probes.execs.probe import split_args


@given(st.binary(max_size=40))
def test_any_bytes_are_text_that_can_be_encoded(raw: bytes) -> None:
    text = readable(raw)
    text.encode("utf-8")
    assert escaped(raw.decode("utf-8", "surrogateescape")) == text
    if b"\\x" not in raw:
        assert raw_of(text) == raw
    for other in (name_of_comm(raw), *split_args(raw)):
        other.encode("utf-8")


@given(st.text(st.characters(codec=None), max_size=20))
def test_any_text_is_made_one_that_can_be_encoded(text: str) -> None:
    escaped(text).encode("utf-8")
    raw_of(text)
    if all(ord(c) < 0xD800 for c in text):
        assert escaped(text) == text


@pytest.mark.parametrize("word", ["\udcff", "a\udc80", "\udcff\udcfe"])
def test_a_name_that_was_typed_finds_the_process(word: str) -> None:
    assert raw_of(word) == os.fsencode(word)
    assert raw_of(readable(os.fsencode(word))) == os.fsencode(word)
