# SPDX-License-Identifier: Apache-2.0
"""Dashboards of other machines: one of them on the screen, a line for all."""
