# SPDX-License-Identifier: Apache-2.0
"""Files for other people: a run as HTML, JSON or a picture, and the comparison of two as HTML.

It imports `probes` and Jinja; Textual only for the picture. Begin with
`tui.export.write`, then `tui.export.html`.
"""
