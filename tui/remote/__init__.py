# SPDX-License-Identifier: Apache-2.0
"""Dashboards of other machines: `probetop attach`."""
