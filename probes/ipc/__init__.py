# SPDX-License-Identifier: Apache-2.0
"""Messages between dashboard, broker and loader, and the child processes that they run in.

It imports `core` only. Begin with `messages`, which decodes everything that crosses from one
process to another; `packets` and `pipe` carry it, `child_process` starts who sends it.
"""
