# SPDX-License-Identifier: Apache-2.0
"""Files for other people: a run as HTML, JSON or a picture, and what differs between two."""
