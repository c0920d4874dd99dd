# SPDX-License-Identifier: Apache-2.0
"""`probetop doctor`: what this machine allows, by trying it, and how to mend what it does not."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json as json_module
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from probes import FOLDER
from probes.core import kernel
from probes.doctor import container_checks
from probes.doctor.render import THROUGH_SUDO, Check, render
from probes.host import output
from probes.uprobes import harm_trials, kernel_trials

ABOVE = "give it the privileges named above"
COMPILE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried for a Check, and what is said when it fails."""

    name: str
    run: Callable[[], str]
    means: str
    fix: str
    needed: bool = False


class Failed(Exception):
    """A trial that knows its own fix: (why, fix)."""


# 524 is the kernel's own ENOTSUPP, which C libraries do not know but bpf(2) returns.
ERRNO_NAMES = {**errno.errorcode, 524: "ENOTSUPP"}
ALL = "no pane can run"
LATENCY = "the function-latency pane"
NEW_KERNEL = "a kernel built with it, as every distribution's is"

TRIALS = (
    Trial("architecture", lambda: _architecture(), ALL, "a 64-bit x86 or ARM machine", True),
    Trial(
        "privileges",
        lambda: _privileges(),
        f"{ALL}: loading BPF programs needs CAP_BPF and CAP_PERFMON",
        "start probetop through sudo",
        True,
    ),
    Trial(
        "seccomp",
        container_checks.seccomp,
        f"{ALL}: the system calls that load and attach programs are refused",
        container_checks.fix(container_checks.UNCONFINED)
        or "a service without SystemCallFilter= on them",
        True,
    ),
    Trial(
        "change of user",
        container_checks.change_of_user,
        "what draws, or answers requests, cannot become another user: only --run-as root starts",
        "start probetop as root, with CAP_SETUID, CAP_SETGID and CAP_SETPCAP",
    ),
    Trial(
        "confinement",
        container_checks.confinement,
        "what draws, or answers requests, can do all that its user can",
        "a kernel with CONFIG_SECCOMP_FILTER=y and CONFIG_SECURITY_LANDLOCK=y, and with "
        "landlock in lsm= on its command line",
    ),
    Trial(
        "process ids",
        container_checks.process_ids,
        "ids, names and filters of processes do not fit what is shown",
        container_checks.fix(container_checks.HOST_PIDS) or "start it outside of the pid namespace",
    ),
    Trial(
        "BTF",
        kernel_trials.btf,
        f"{ALL}: probes find kernel structures by it",
        "a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian 11, Ubuntu 20.10 and later have",
        True,
    ),
    Trial(
        "JIT",
        kernel_trials.jit,
        "every pane's probes cost several times more",
        "sudo sysctl net.core.bpf_jit_enable=1",
    ),
    Trial(
        "kernel memory",
        kernel_trials.kernel_memory,
        f"{ALL}: probes may not read kernel structures (lockdown=confidentiality does this)",
        "boot without lockdown=confidentiality on the kernel's command line",
        True,
    ),
    Trial(
        "raw tracepoints",
        kernel_trials.raw_tracepoint,
        "the system-call and exec panes cannot run",
        f"CONFIG_BPF_EVENTS=y and CONFIG_TRACEPOINTS=y: {NEW_KERNEL}",
        True,
    ),
    Trial(
        "tracefs",
        kernel_trials.tracefs,
        f"no tracepoints in {LATENCY} and no failed execs in the exec pane",
        "sudo mount -t tracefs tracefs /sys/kernel/tracing",
    ),
    Trial(
        "tracepoints",
        kernel_trials.tracepoint,
        f"no tracepoints in {LATENCY} and no failed execs in the exec pane",
        "CONFIG_PERF_EVENTS=y, and tracefs mounted at /sys/kernel/tracing",
    ),
    Trial(
        "kprobes",
        kernel_trials.kprobe,
        f"no kernel functions by kprobe in {LATENCY}; tracepoints and uprobes stay",
        f"CONFIG_KPROBE_EVENTS=y: {NEW_KERNEL}",
    ),
    Trial(
        "fentry",
        lambda: _fentry(),
        f"no kernel functions by fentry in {LATENCY}; kprobes, where there are any, cost more",
        "a kernel with CONFIG_FUNCTION_TRACER=y and BPF trampolines (x86_64 5.5, arm64 6.0)",
    ),
    Trial(
        "uprobes",
        kernel_trials.uprobe,
        f"no functions of programs and libraries in {LATENCY}",
        f"CONFIG_UPROBE_EVENTS=y: {NEW_KERNEL}",
    ),
    Trial(
        "return probes",
        harm_trials.passes_filters,
        f"functions are timed at their own return instructions in {LATENCY}, which costs more",
        "on x86_64 Linux 6.14 or newer, or an update of the kernel before it",
    ),
    Trial(
        "probes at nops",
        harm_trials.survives_fork,
        f"functions that begin with a 5-byte nop are probed behind it in {LATENCY}",
        "nothing has to be done: such nops are avoided",
    ),
    Trial(
        "USDT",
        kernel_trials.usdt,
        f"no static probes of programs (USDT) in {LATENCY}",
        "Linux 4.20 or newer with CONFIG_UPROBE_EVENTS=y",
    ),
    Trial(
        "other processes",
        container_checks.other_processes,
        f"no functions of programs in other containers in {LATENCY}",
        "start probetop as root, with CAP_SYS_PTRACE",
    ),
    Trial(
        "ring buffer",
        kernel_trials.ring_buffer,
        "the exec pane cannot run",
        "Linux 5.8 or newer",
        True,
    ),
    Trial(
        "mmapable arrays",
        kernel_trials.mmapable_array,
        f"{ALL}: counters are read as memory",
        "Linux 5.5 or newer",
        True,
    ),
    Trial(
        "run statistics",
        kernel_trials.run_statistics,
        "no pane can say what its probe costs (shown as a dash)",
        "Linux 5.8 or newer",
    ),
    Trial(
        "hardware PMU",
        kernel_trials.hardware_pmu,
        "the PMC pane has no cycles, instructions or IPC: only the kernel's software counters",
        "bare metal, or a virtual machine whose host passes the PMU through",
    ),
    Trial("BCC", lambda: _bcc(), f"{ALL}: BCC compiles the probes", "", True),
    Trial(
        "libbpf",
        kernel_trials.libbpf_version,
        f"{ALL}: BCC and the BTF look-ups need it",
        "install your distribution's libbpf package (libbpf1, libbpf)",
        True,
    ),
    Trial("compiler", lambda: _compiler(), ALL, "", True),
    Trial(
        "cgroup v2",
        container_checks.cgroup_root,
        "no filter by cgroup, and no cgroup column in the exec pane",
        "sudo mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with systemd's default",
    ),
)


def _architecture() -> str:
    found = kernel.arch()
    if found is None:
        raise kernel_trials.Unavailable(f"{kernel.machine()} is neither x86_64 nor arm64")
    return found


def _privileges() -> str:
    who = f"uid {os.geteuid()}"
    have = kernel.capabilities()
    if kernel.in_user_namespace():
        raise Failed(f"{who} of a user namespace", "start probetop as the machine's own root")
    if "CAP_SYS_ADMIN" in have:
        return f"{who} with CAP_SYS_ADMIN"
    missing = " and ".join(sorted({"CAP_BPF", "CAP_PERFMON"} - have))
    if missing and os.geteuid() == 0:
        raise Failed(f"{who} without {missing}", container_checks.any_fix(missing.split(" and ")))
    if missing:
        raise kernel_trials.Unavailable(f"{who} without {missing}")
    return f"{who} with CAP_BPF and CAP_PERFMON"


def _bcc() -> str:
    """BCC's version, from its files; the loader alone imports it."""
    spec = importlib.util.find_spec("bcc")
    imported = os.path.dirname(os.path.dirname(spec.origin)) if spec and spec.origin else ""
    if imported and not kernel.is_bcc(imported):
        why = f"the package called bcc in {imported} is another one and hides BCC"
        raise Failed(why, f"{sys.executable} -m pip uninstall bcc")
    found = kernel.find_bcc()
    if not found:
        raise Failed(*kernel.bcc_hint())
    text = kernel.read_text(f"{found[0]}/bcc/version.py") or ""
    version = text.partition("=")[2].strip().strip("'\"") or "unknown version"
    return f"{version} in {found[0]}"


def _compiler() -> str:
    if not kernel.may_load():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return compile_check()


def _fentry() -> str:
    """As trials.fentry, but with what a refusal means for somebody who has the privileges."""
    try:
        return kernel_trials.fentry()
    except OSError as error:
        if error.errno != errno.EPERM or not kernel.may_load():
            raise
        why = "the kernel has fentry, but said EPERM: Operation not permitted"
        raise Failed(
            why, "ask who runs this machine: its policy or hypervisor forbids it"
        ) from error


def compile_check(command: list[str] | None = None) -> str:
    """Compiles and loads a program in a loader process; returns what it says of itself.

    Raises Failed with the loader's why and fix, also when it crashes or hangs.
    """
    command = command or [sys.executable, "-m", "probes.bpf.compiler", "--selftest"]
    again = "run it by hand to see what it prints: " + " ".join(command)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=COMPILE_SECONDS,
            cwd=FOLDER.parent,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"the compiler did not finish in {COMPILE_SECONDS:.0f} s", again) from error
    try:
        answer = json_module.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        why = f"the compiler's process ended with status {done.returncode} ({last})"
        raise Failed(why, again) from error
    if not answer.get("ok"):
        raise Failed(str(answer.get("why") or "it said no"), str(answer.get("fix") or again))
    return f"BCC {answer.get('bcc')} compiled and loaded a program"


def judge(trial: Trial, privileged: bool) -> Check:
    """Runs one trial and turns whatever comes of it into a verdict."""

    def check(ok: bool | None, detail: str, fix: str = "", error: OSError | None = None) -> Check:
        fix = "" if ok else fix or _given_back(trial.name, error) or trial.fix
        return Check(trial.name, ok, detail, "" if ok else trial.means, fix, trial.needed)

    try:
        return check(True, trial.run())
    except Failed as failed:
        why, fix = failed.args
        return check(False, why, fix)
    except kernel_trials.Untried as untried:
        return check(None, str(untried))
    except kernel_trials.Unavailable as unavailable:
        return check(False, str(unavailable))
    except OSError as error:
        name = ERRNO_NAMES.get(error.errno or 0, str(error.errno))
        if error.errno in (errno.EPERM, errno.EACCES) and not privileged:
            fix = THROUGH_SUDO if os.geteuid() else ABOVE
            return check(None, f"not tried: needs privileges ({name})", fix)
        where = f" on {error.filename}" if error.filename else ""
        return check(False, f"the kernel said {name}{where}: {error.strerror}", error=error)
    except (AttributeError, ValueError) as error:
        # An old library without the function, or a file in a format not known here.
        return check(False, f"{type(error).__name__}: {error}")


def _given_back(name: str, error: OSError | None) -> str:
    """The fix for what a container or a service manager took away; "" if that is not why."""
    way = container_checks.way(name, error)
    return container_checks.fix(way) if way is not None else ""


def examine() -> list[Check]:
    """All verdicts, in the order of TRIALS."""
    # Kernels before 5.11 count maps as locked memory; raising the limit takes privileges.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    privileged = kernel.may_load()
    return [judge(trial, privileged) for trial in TRIALS]


def machine_facts() -> dict[str, Any]:
    """What this machine is; None for what does not apply or cannot be seen."""
    return {
        "host": os.uname().nodename,
        "distribution": kernel.distribution()[0],
        "kernel": kernel.release(),
        "machine": kernel.machine(),
        "cpus_online": len(kernel.online_cpus()),
        "cpus_possible": kernel.possible_cpus(),
        "container": kernel.container(),
        "virtual_machine": kernel.virtual_machine(),
        "lockdown": kernel.lockdown(),
        "python": platform.python_version(),
        "uid": os.geteuid(),
    }


def ready(checks: list[Check]) -> bool:
    """Whether the panes that are on at start can run."""
    return all(check.ok for check in checks if check.needed)


def report(fds: Sequence[int] = ()) -> dict[str, Any]:
    """All verdicts as the agent has them made: what `--json` prints."""
    return _report(examine(), machine_facts())


def _report(checks: list[Check], facts: dict[str, Any]) -> dict[str, Any]:
    return {"ok": ready(checks), "machine": facts, "checks": [asdict(c) for c in checks]}


def main(json: bool = False) -> int:
    """Prints the report; returns 0 if the default panes can run on this machine, else 1.

    Raises ProbeError where standard output takes nothing.
    """
    checks, facts = examine(), machine_facts()
    if json:
        text = json_module.dumps(_report(checks, facts), indent=2)
    else:
        tty = sys.stdout.isatty()
        width = os.get_terminal_size(sys.stdout.fileno()).columns if tty else 100
        text = render(checks, facts, tty and not os.environ.get("NO_COLOR"), width)
    output.write(text + "\n", sys.stdout)
    return 0 if ready(checks) else 1


__all__ = ["THROUGH_SUDO", "TRIALS", "Check", "examine", "judge", "main", "ready", "render"]
