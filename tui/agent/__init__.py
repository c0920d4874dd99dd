# SPDX-License-Identifier: Apache-2.0
"""`probetop serve`: HTTP, measurements and Prometheus metrics, without privileges.

Its packages are `http` (server, access, routes, OpenAPI), `metrics` (Prometheus) and `state`
(Frames, probes and measurements, without HTTP). All import `probes`. Only `http` imports Starlette
and uvicorn. Only `tui.agent.state.snapshot_worker` needs Textual, and it runs in its own process.
Begin with `tui.agent.command` (the start with privileges), then `tui.agent.service`, which connects
the parts.
"""
