# SPDX-License-Identifier: Apache-2.0
"""What the command line runs without a screen of its own: `stream`, `record`, `snapshot`, `diff`;
and the start of `attach`.

It imports `probes`, settings and export; Textual only for a picture or for `attach`. Begin with
`tui.commands.stream_record`, then the module that has the name of a command.
"""
