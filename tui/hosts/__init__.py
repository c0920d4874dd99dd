# SPDX-License-Identifier: Apache-2.0
"""Several remote hosts on one screen: the state of each link, and the hosts bar.

It imports `tui.sessions` and, for the bar, `tui.widgets` and Textual. Begin with
`tui.hosts.remote_session`, then `tui.hosts.hosts_bar`.
"""
