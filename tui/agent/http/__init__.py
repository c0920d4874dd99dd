# SPDX-License-Identifier: Apache-2.0
"""The agent's HTTP side: sockets, server limits, access, routes and their OpenAPI description.

It imports `tui.agent.state`, `tui.agent.metrics`, Starlette and uvicorn, and never Textual. Begin
with `tui.agent.http.operations` (the table of all requests) and `tui.agent.http.api` (how a request
is handled), then `tui.agent.http.server` (limits) and `tui.agent.http.auth` (access).
"""
