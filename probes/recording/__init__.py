# SPDX-License-Identifier: Apache-2.0
"""Frames as bytes: in files, in memory and on their way between machines.

It imports `core`, `ipc`, `host` and `source`. Whatever is decoded may be hostile and is bounded.
Begin with `codec`, then `file` (recordings), `history` (the last minutes) and `replay`.
"""
