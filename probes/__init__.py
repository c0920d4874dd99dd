# SPDX-License-Identifier: Apache-2.0
"""The kernel side: BPF programs, what loads and reads them, and Frames, live, recorded and remote.

It imports neither Textual nor `tui`, and bcc only in `probes.bpf.compiler`, so that it can be
imported without BCC, root and Textual. Begin with `probes.core.sample` (what a Frame is),
`probes.core.schema` (how a probe declares what it measures), `probes.probe` (what a probe does) and
`probes.bpf.plan` (what a source is), then follow one probe: `execs.bpf.c` and `probes.execs.probe`.
"""

from pathlib import Path

__version__ = "0.1.0"

FOLDER = Path(__file__).resolve().parent
"""Where `include/`, `data/` and the BPF programs lie."""
