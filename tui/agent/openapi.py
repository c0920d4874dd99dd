# SPDX-License-Identifier: Apache-2.0
"""The description of the interface."""

from __future__ import annotations


def description(tokens: bool) -> bytes:
    """OpenAPI."""
    return b"{}"
