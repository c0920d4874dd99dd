# SPDX-License-Identifier: Apache-2.0
"""The doctor's verdicts on this kernel, each against a second witness."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from probes.bpf import bpf_syscall
from probes.core import kernel
from probes.doctor import report as doctor
from probes.symbols.usdt import usdt_probes
from probes.uprobes import kernel_trials
from tests.paths import ROOT

pytestmark = pytest.mark.kernel

NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
DOCTOR = "import sys; from probes.doctor import report as doctor; sys.exit(doctor.main(json=True))"


def report(prefix: list[str]) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [*prefix, sys.executable, "-B", "-c", DOCTOR],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    answer["verdicts"] = {check["name"]: check for check in answer["checks"]}
    assert done.stderr == ""
    return done.returncode, answer


def loaded_programs() -> set[int]:
    text = subprocess.run(
        ["bpftool", "-j", "prog", "list"], capture_output=True, text=True, check=True
    ).stdout
    return {program["id"] for program in json.loads(text) if program.get("name") == "probetop"}


def test_this_machine_can_run_the_default_panes() -> None:
    status, answer = report([])
    bad = [check for check in answer["checks"] if check["needed"] and not check["ok"]]
    assert bad == []
    assert (status, answer["ok"]) == (0, True)
    assert answer["machine"]["cpus_online"] == os.cpu_count()


def test_trials_leave_nothing_in_the_kernel() -> None:
    before = loaded_programs()
    for trial in doctor.TRIALS:
        if trial.name != "compiler":
            doctor.judge(trial, True)
    assert loaded_programs() <= before


def test_without_privileges_nothing_is_claimed() -> None:
    status, answer = report(NOBODY)
    verdicts = answer["verdicts"]
    assert (status, answer["ok"]) == (1, False)
    assert verdicts["privileges"]["ok"] is False
    for name in ("raw tracepoints", "tracepoints", "mmapable arrays", "run statistics", "compiler"):
        assert verdicts[name]["ok"] is None, name
        assert verdicts[name]["fix"] == doctor.THROUGH_SUDO


def test_root_of_a_user_namespace_is_told() -> None:
    prefix = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are switched off")
    _, answer = report(prefix)
    assert "user namespace" in answer["verdicts"]["privileges"]["detail"]
    assert answer["verdicts"]["raw tracepoints"]["ok"] is None


def test_container_root_is_told_its_capabilities() -> None:
    _, answer = report(["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"])
    assert "CAP_BPF" in answer["verdicts"]["privileges"]["detail"]
    assert "--cap-add" in answer["verdicts"]["privileges"]["fix"]


def test_loaded_program_counts_and_leaves() -> None:
    with kernel_trials.closing(bpf_syscall.enable_stats()):
        prog = bpf_syscall.prog_load(bpf_syscall.PROG_RAW_TRACEPOINT, bpf_syscall.RETURN_0)
        link = bpf_syscall.raw_tracepoint_open(prog, "sys_enter")
        for _ in range(1000):
            os.getppid()
        os.close(link)
        count = int(bpf_syscall.fdinfo(prog)["run_cnt"])
        for _ in range(1000):
            os.getppid()
        after = int(bpf_syscall.fdinfo(prog)["run_cnt"])
        os.close(prog)
    assert count >= 1000
    assert after == count


def test_refused_program_brings_the_verifiers_log() -> None:
    with pytest.raises(bpf_syscall.VerifierError) as caught:
        bpf_syscall.prog_load(bpf_syscall.PROG_RAW_TRACEPOINT, bpf_syscall.insn(bpf_syscall.EXIT))
    assert "R0 !read_ok" in caught.value.log


def test_kprobe_verdict_matches_the_kernel() -> None:
    has = os.path.exists("/sys/bus/event_source/devices/kprobe/type")
    kprobes = next(trial for trial in doctor.TRIALS if trial.name == "kprobes")
    assert doctor.judge(kprobes, True).ok is has


def test_capabilities_match_libcaps() -> None:
    if shutil.which("capsh") is None:
        pytest.skip("capsh is not installed (libcap2-bin)")
    mask = next(
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapEff")
    )
    said = subprocess.run(
        ["capsh", f"--decode={mask}"], capture_output=True, text=True, check=True
    ).stdout
    names = said.strip().partition("=")[2].upper().split(",")
    assert kernel.capabilities() == set(names)


def test_usdt_notes_match_readelf() -> None:
    if shutil.which("readelf") is None:
        pytest.fail("binutils are missing: test.sh installs them with gcc")
    compared = 0
    for path in kernel_trials.mapped_files():
        notes = subprocess.run(
            ["readelf", "-nW", path], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        names = [line.split()[1] for line in notes if line.strip().startswith("Name: ")]
        assert [probe.name for probe in usdt_probes(path)] == names
        compared += len(names)
    if not compared:
        pytest.skip("nothing that this Python maps has static probes")
