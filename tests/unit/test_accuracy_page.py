# SPDX-License-Identifier: Apache-2.0
"""The page about accuracy names tests that exist."""

from __future__ import annotations

import re

from tests.paths import ROOT


def test_each_test_that_the_page_names_exists() -> None:
    text = (ROOT / "docs" / "accuracy.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 20
    for file, function in named:
        source = (ROOT / file).read_text()
        assert re.search(rf"^def {function}\(", source, re.MULTILINE) or not function, function
