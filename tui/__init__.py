# SPDX-License-Identifier: Apache-2.0
"""User side of probetop: Frames to the screen, to files and to other programs."""
