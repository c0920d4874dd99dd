# SPDX-License-Identifier: Apache-2.0
"""Plans of what to load, what compiles, loads and attaches them, and maps as memory.

It imports `core`, `ipc` and `host`; `compiler` alone imports bcc. Begin with `plan`, then
`compiler` (which runs as root and ends) and `maps` (which the unprivileged side reads).
"""
