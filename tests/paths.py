# SPDX-License-Identifier: Apache-2.0
"""Where the tree that is tested lies."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""
PROBES = ROOT / "probes"
INCLUDE = PROBES / "include"
"""The headers of BPF programs."""
