# SPDX-License-Identifier: Apache-2.0
"""Other kernels, booted in emulated machines, and what is tested in them."""
