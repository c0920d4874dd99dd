# SPDX-License-Identifier: Apache-2.0
"""Another machine as a Source: Frames over ssh or HTTP, and commands to it.

It imports `core`, `host`, `recording` and `source`. What the other side sends may be anything.
Begin with `source`, then `ssh` and `http`.
"""
