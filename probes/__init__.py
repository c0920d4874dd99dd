# SPDX-License-Identifier: Apache-2.0
"""Kernel side of probetop, up to Frames: imports without BCC, without root, without Textual."""

__version__ = "0.1.0"
