# SPDX-License-Identifier: Apache-2.0
"""What every room of `tui` may use: styled lines, words, colours, one line being typed.

It imports `probes`, never Textual and no other room. Begin with `tui.shared.styled_lines`,
then `tui.shared.text` and `tui.shared.theme`.
"""
