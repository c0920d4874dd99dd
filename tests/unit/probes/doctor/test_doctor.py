# SPDX-License-Identifier: Apache-2.0
"""Verdicts of the doctor: what each kind of outcome is turned into, and how it reads."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from probes.core import kernel
from probes.doctor import report as doctor
from probes.doctor.render import Check
from probes.doctor.report import Trial
from probes.uprobes import kernel_trials

FACTS: dict[str, Any] = {
    "host": "web-3",
    "distribution": "Debian 12",
    "kernel": "6.1.0",
    "machine": "x86_64",
    "cpus_online": 2,
    "container": None,
    "virtual_machine": "KVM",
}


def raising(error: Exception) -> Callable[[], str]:
    def run() -> NoReturn:
        raise error

    return run


def judged(error: Exception, privileged: bool = True) -> Check:
    return doctor.judge(Trial("x", raising(error), "no pane", "mend it"), privileged)


def test_success_needs_no_meaning_and_no_fix() -> None:
    check = doctor.judge(Trial("x", lambda: "seen", "no pane", "mend it", True), True)
    assert check == Check("x", True, "seen", "", "", True)


@pytest.mark.parametrize(
    ("uid", "fix"), [(1000, doctor.THROUGH_SUDO), (0, doctor.ABOVE)], ids=["user", "root"]
)
@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_refusal_is_a_verdict_only_with_privileges(
    monkeypatch: pytest.MonkeyPatch, number: int, uid: int, fix: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    error = OSError(number, os.strerror(number))
    assert judged(error).ok is False
    unprivileged = judged(error, privileged=False)
    assert unprivileged.ok is None
    assert unprivileged.fix == fix


def test_errno_is_named() -> None:
    check = judged(OSError(errno.EINVAL, "Invalid argument"))
    assert (check.ok, check.detail) == (False, "the kernel said EINVAL: Invalid argument")
    assert "ENOTSUPP" in judged(OSError(524, "Unknown error 524")).detail
    missing = FileNotFoundError(
        errno.ENOENT, "No such file or directory", "/sys/kernel/btf/vmlinux"
    )
    assert "ENOENT on /sys/kernel/btf/vmlinux" in judged(missing).detail


def test_a_trial_may_bring_its_own_words() -> None:
    assert judged(kernel_trials.Unavailable("no counters")).detail == "no counters"
    assert judged(kernel_trials.Unavailable("no counters")).fix == "mend it"
    assert judged(kernel_trials.Untried("nothing to try")).ok is None
    failed = judged(doctor.Failed("why", "another fix"))
    assert (failed.ok, failed.detail, failed.fix) == (False, "why", "another fix")
    assert judged(AttributeError("no such function")).ok is False


def selftest(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_compiler_that_works() -> None:
    program = "import json; print('noise'); print(json.dumps({'ok': True, 'bcc': '0.26.0'}))"
    assert doctor.compile_check(selftest(program)) == "BCC 0.26.0 compiled and loaded a program"


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ('print(\'{"ok": false, "why": "no LLVM", "fix": "get one"}\')', "no LLVM"),
        ("import os; os.abort()", "status -6"),
        ("import sys; sys.exit('it broke')", "status 1 (it broke)"),
        ("print('not json')", "status 0"),
    ],
)
def test_compiler_that_fails(program: str, why: str) -> None:
    with pytest.raises(doctor.Failed) as caught:
        doctor.compile_check(selftest(program))
    assert why in caught.value.args[0]
    assert caught.value.args[1]


def test_compiler_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "COMPILE_SECONDS", 0.2)
    with pytest.raises(doctor.Failed, match="did not finish"):
        doctor.compile_check(selftest("import time; time.sleep(600)"))


def test_report_says_meaning_and_fix_of_a_no_only() -> None:
    checks = [
        Check("BTF", True, "5 MB", "", "", True),
        Check("kprobes", False, "none here", "no kprobes in the latency pane", "a kernel", False),
        Check("uprobes", None, "not tried", "no uprobes", doctor.THROUGH_SUDO, False),
    ]
    lines = doctor.render(checks, FACTS, colour=False, width=80).splitlines()
    text = "\n".join(lines)
    assert lines[0] == "web-3: Debian 12, Linux 6.1.0 x86_64, 2 CPUs, virtual machine (KVM)"
    assert lines[2] == "BTF      yes  5 MB"
    assert lines[3] == "kprobes  no   none here"
    assert "means no kprobes in the latency pane" in text
    assert "no uprobes" not in text
    assert "The default panes can run here." in text
    assert doctor.THROUGH_SUDO in lines[-1]
    assert "\x1b" not in text
    assert "\x1b[31mno" in doctor.render(checks, FACTS, colour=True, width=80)


def test_a_needed_check_decides() -> None:
    good = Check("a", True, "", "", "", True)
    optional = Check("b", False, "", "m", "f", False)
    needed = Check("c", None, "", "m", "f", True)
    assert doctor.ready([good, optional])
    assert not doctor.ready([good, needed])
    assert "cannot run here yet: c." in doctor.render([good, needed], FACTS, False, 80)


def test_every_no_says_what_it_means_and_how_to_mend_it() -> None:
    for trial in doctor.TRIALS:
        assert trial.means, trial.name
        # These two know their fix only once they have failed.
        assert trial.fix or trial.name in ("BCC", "compiler"), trial.name


def test_missing_bcc_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "find_bcc", list)
    monkeypatch.setattr(kernel, "distribution", lambda: ("Fedora Linux 43", ["fedora"]))
    bcc = next(trial for trial in doctor.TRIALS if trial.name == "BCC")
    check = doctor.judge(bcc, True)
    assert check.ok is False
    assert check.fix == "sudo dnf install python3-bcc"


def test_another_package_called_bcc_is_not_bcc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text("raise ImportError('must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    bcc = next(trial for trial in doctor.TRIALS if trial.name == "BCC")
    check = doctor.judge(bcc, True)
    assert check.ok is False
    assert str(tmp_path) in check.detail
    assert "uninstall" in check.fix


def test_json_is_one_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [Check("BTF", False, "none", "no pane can run", "another kernel", True)]
    monkeypatch.setattr(doctor, "examine", lambda: checks)
    assert doctor.main(json=True) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["checks"] == [
        {
            "name": "BTF",
            "ok": False,
            "detail": "none",
            "means": "no pane can run",
            "fix": "another kernel",
            "needed": True,
        }
    ]
    assert report["machine"]["kernel"] == os.uname().release
