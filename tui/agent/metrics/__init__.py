# SPDX-License-Identifier: Apache-2.0
"""What Prometheus scrapes: counters that only rise, made of successive Frames.

It imports `probes`, `tui.agent.state.client_view` and prometheus_client, and nothing of HTTP.
Begin with `collector` (one scrape), then `families` (what is exposed) and `probe_counters`.
"""
