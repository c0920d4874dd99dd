# SPDX-License-Identifier: Apache-2.0
"""The privileged side: it loads and keeps what is attached, and answers the dashboard.

It imports what is below it; nothing but `live` imports it. Begin with `server`, then `units`
(programs and links) and `burst_timer`; `client` is the other end.
"""
