# SPDX-License-Identifier: Apache-2.0
"""Commands: `stream`, `record`, `snapshot`, `diff` and `attach`.

They import `probes`, settings and export, and `tui.app` only for a picture or for `attach`. Begin
with `tui.commands.stream_record`, then the module named after a command.
"""
