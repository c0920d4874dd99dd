# SPDX-License-Identifier: Apache-2.0
"""`./run.sh bench`: what probetop costs."""

from __future__ import annotations

import sys

from bench.cost import main

if __name__ == "__main__":
    sys.exit(main())
