# SPDX-License-Identifier: Apache-2.0
"""The agent's HTTP: sockets, server limits, access, routes and their OpenAPI description.

It imports `tui.agent.state`, `tui.agent.metrics`, Starlette and uvicorn, and never Textual.
Begin with `api` (the routes and the way of a request), then `server` (limits on connections) and
`auth` (who may ask for what).
"""
