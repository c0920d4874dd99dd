# SPDX-License-Identifier: Apache-2.0
"""Files, processes, control groups, terminals and privileges of this machine.

It imports `core` and `ipc`. Everything that reads /proc or opens a file by a name that somebody
else chose is here. Begin with `privileges` (what the dashboard gives up) and `file_access` (with
whose rights files are looked up).
"""
