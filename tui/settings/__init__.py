# SPDX-License-Identifier: Apache-2.0
"""Settings: the options of the command line and the configuration file, validated.

It imports `probes` and the registry of probes, never Textual. Begin with `tui.settings.options`
(all options), then `tui.settings.validators` (their values).
"""
