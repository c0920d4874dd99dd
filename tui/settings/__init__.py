# SPDX-License-Identifier: Apache-2.0
"""Settings: options of the command line and of the configuration file, checked.

It imports `probes` and the registry of probes, never Textual. Begin with `tui.settings.options`
(what there is), then `tui.settings.validators` (what a value may be).
"""
