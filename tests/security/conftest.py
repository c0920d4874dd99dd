# SPDX-License-Identifier: Apache-2.0
"""What attacks start must not outlive them."""

from tests.kernel.conftest import no_child_is_left

__all__ = ["no_child_is_left"]
