# SPDX-License-Identifier: Apache-2.0
"""Several machines on one screen: how each link stands, and the line that tells.

It imports `tui.sessions` and, for the line, `tui.widgets` and Textual. Begin with
`tui.hosts.remote_session`, then `tui.hosts.hosts_bar`.
"""
