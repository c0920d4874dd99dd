# SPDX-License-Identifier: Apache-2.0
"""The tests that CI may skip, each with the reason: there any other skip is a failure.

CI runs as root on x86_64 with all that test.sh installs, so that every other condition of a
skip (root, a tool, a header, an architecture, a version of the kernel) holds there.
"""

from __future__ import annotations

NEVER = {
    "tests/kernel/test_pmc.py::test_cpus_come_and_go": (
        "takes a CPU away from everybody on the machine: PROBETOP_TEST_HOTPLUG=1 runs it"
    ),
}
"""No run of CI has these; the path below the checkout and the test's name -> the reason."""

BY_MACHINE = {
    "tests/kernel/test_doctor.py::test_root_of_a_user_namespace_is_told": (
        "needs user namespaces, which the machine may have switched off"
    ),
    "tests/kernel/test_doctor.py::test_usdt_notes_match_readelf": (
        "needs a library with static probes in this Python"
    ),
    "tests/kernel/test_latency_errors.py::test_kprobes_that_are_not_there": (
        "needs a kernel without kprobes; the guests have kernels with them"
    ),
    "tests/kernel/test_latency_errors.py::test_fentry_that_is_refused": (
        "needs a kernel that refuses fentry; the guests have kernels that do not"
    ),
    "tests/kernel/test_latency_events.py::test_block_requests_joined_by_fields": (
        "needs the checkout on a block device"
    ),
    "tests/vm/guest/test_probes.py::test_compat_calls_are_told_apart": (
        "needs 32-bit calls, which arm64 guests do not make; x86_64 guests run it"
    ),
    "tests/vm/test_guests.py::test_guest": "needs PROBETOP_VM, which .ci/run sets",
}
"""Those that CI runs where the machine has what they need."""

ALLOWED = {**NEVER, **BY_MACHINE}
