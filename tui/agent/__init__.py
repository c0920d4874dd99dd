# SPDX-License-Identifier: Apache-2.0
"""`probetop serve`: HTTP, measurements and Prometheus metrics, answered without privileges.

Three rooms: `http` (server, access, routes, OpenAPI), `metrics` (Prometheus) and `state` (Frames,
probes and measurements, without HTTP). All import `probes`; Starlette and uvicorn are imported in
`http` alone, Textual only for `tui.agent.state.snapshot_worker`, which runs in a process of its
own. Begin with `tui.agent.command` (the start while there are privileges), then
`tui.agent.service`, which puts the parts together.
"""
