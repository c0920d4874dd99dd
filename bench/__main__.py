# SPDX-License-Identifier: Apache-2.0
"""`./run.sh bench`: what probetop costs.

`./run.sh bench soak`: whether it grows; `./run.sh bench truth`: whether estimates are true.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["soak"]:
        del sys.argv[1]
        from bench.soak import main
    elif sys.argv[1:2] == ["truth"]:
        del sys.argv[1]
        from bench.truth import main
    else:
        from bench.cost import main
    sys.exit(main())
