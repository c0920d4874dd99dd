# SPDX-License-Identifier: Apache-2.0
"""Folders of tests that other users can reach."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that all users can read, for test files that import it in place of pytest's.

    Those of pytest lie in one that every pytest that starts closes to all but its own user.
    """
    folder = Path(tempfile.mkdtemp(prefix="probetop-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
