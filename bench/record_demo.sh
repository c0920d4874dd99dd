#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bench/record_demo.sh: records tui/demo/shop.ptrec, which `probetop demo` plays, from 45 seconds
# of this machine under bench/workload.py. Only the workload is recorded, by its control group.
# Needs root.
set -eu

cd "$(dirname "${BASH_SOURCE[0]}")/.."
slice=shop.slice
python=.venv/bin/python

/usr/bin/python3 bench/workload.py --seconds 55 --slice "$slice" &
workload=$!
trap 'kill "$workload" 2>/dev/null; wait "$workload" || :' EXIT
sleep 3
"$python" -m tui.cli record tui/demo/shop.ptrec --force --seconds 45 \
	--cgroup "/$slice" --latency --cost always
chmod 644 tui/demo/shop.ptrec
