# SPDX-License-Identifier: Apache-2.0
"""Files for other people: a run as HTML, JSON or a picture.

It imports `probes` and Jinja, and Textual only for the picture. Begin with `tui.export.write`, then
`tui.export.html`.
"""
