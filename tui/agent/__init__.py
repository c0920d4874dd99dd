# SPDX-License-Identifier: Apache-2.0
"""`probetop serve`: HTTP routes, access, measurements and Prometheus metrics, without privileges.

It imports `probes`, Starlette and uvicorn, and never Textual. Begin with `tui.agent.command` (the
start), then `tui.agent.api` (routes) and `tui.agent.metrics`.
"""
