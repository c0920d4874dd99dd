# SPDX-License-Identifier: Apache-2.0
"""What is counted: Samples, their differences and sums, histograms, estimates and names.

It imports nothing of the other packages of `probes`: whatever reads, keeps or shows numbers builds
on it. Begin with `sample` (what a probe has counted), `schema` (what it declares of that) and
`delta` (what two Samples say about the time between them).
"""
