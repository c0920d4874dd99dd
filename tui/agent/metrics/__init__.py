# SPDX-License-Identifier: Apache-2.0
"""What Prometheus scrapes: counters that only rise, made of successive Frames.

It imports `probes`, `tui.agent.state.client_view` and prometheus_client, and nothing of HTTP.
Begin with `tui.agent.metrics.collector` (one scrape), then `tui.agent.metrics.families` (what is
exposed) and `tui.agent.metrics.table_counters`.
"""
