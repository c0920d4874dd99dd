# SPDX-License-Identifier: Apache-2.0
"""`probetop doctor`: what this machine allows, by trying it, and how to mend what it does not.

It imports everything below. Begin with `report` (the list of checks) and
`probes.uprobes.kernel_trials` (how each is tried).
"""
