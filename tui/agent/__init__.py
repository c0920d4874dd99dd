# SPDX-License-Identifier: Apache-2.0
"""The agent: probes and Frames over HTTP, without a screen and without Textual."""
