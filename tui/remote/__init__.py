# SPDX-License-Identifier: Apache-2.0
"""`probetop attach`: dashboards of other machines, one or several on one screen.

It imports `tui.app` and Sources of `probes`; `tui.remote.app` and `tui.remote.line` import Textual.
Begin with `tui.remote.command`, then `tui.remote.app`.
"""
