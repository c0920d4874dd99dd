# SPDX-License-Identifier: Apache-2.0
"""Modules that all packages of `tui` use: styled lines, text, colours, a line editor.

They import `probes`, never Textual or another package of `tui`. Begin with
`tui.shared.styled_lines`, then `tui.shared.text` and `tui.shared.theme`.
"""
