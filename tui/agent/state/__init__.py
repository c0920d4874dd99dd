# SPDX-License-Identifier: Apache-2.0
"""The agent's state between requests: Frames, probes, targets, measurements, the last minute.

It imports `probes`, `tui.export` for the contents of snapshots and `tui.agent.errors`, but nothing
of HTTP or Prometheus. Begin with `tui.agent.state.frame_hub` (from the Source's thread to the event
loop) and `tui.agent.state.probe_control` (what clients change).
"""
