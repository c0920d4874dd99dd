# SPDX-License-Identifier: Apache-2.0
"""The same workloads as in other guests."""

from __future__ import annotations

from tests.vm.guest.conftest import program

__all__ = ["program"]
