# SPDX-License-Identifier: Apache-2.0
"""The process that imports BCC: compiles, loads, attaches, hands over descriptors, ends.

It is the only file that imports bcc. It lives for less than a second as a child of the
broker, so that LLVM's 130 MB and its crashes go with it. What BCC and libbpf print goes to
descriptor 2, which the broker has made a file: it becomes part of the error message.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from probes import bpfsys, btf, ipc, kernel
from probes.attach import Attacher, batches
from probes.base import Loaded, Plan, ProbeError

HERE = Path(__file__).resolve().parent
LOG_LIMIT = 16_000
PR_SET_PDEATHSIG = 1
SIGKILL = 9
REPORT = "report it, with what --log FILE writes"

SELFTEST = """
BPF_F_TABLE("array", u32, u64, counter, 1, 1024);
int selftest(void *ctx)
{
	u32 zero = 0;
	u64 *value = counter.lookup(&zero);

	if (value)
		(*value)++;
	return 0;
}
"""


def import_bcc() -> Any:
    """The distribution's BCC module; raises ProbeError with the package to install."""
    directories = kernel.find_bcc()
    if not directories:
        raise ProbeError(*kernel.bcc_hint())
    # Appended, so that nothing of the distribution's shadows this program's own packages.
    sys.path.extend(directories)
    os.environ["BCC_KERNEL_SOURCE"] = str(HERE)
    try:
        import bcc
    except (ImportError, OSError, AttributeError) as error:
        why = f"BCC in {directories[0]} does not import ({error})"
        raise ProbeError(why, f"reinstall it: {kernel.bcc_hint()[1]}") from error
    if not hasattr(bcc, "BPF"):
        raise ProbeError("the package 'bcc' found first is not BCC", "pip uninstall bcc")
    return bcc


def kernel_version() -> int:
    """KERNEL_VERSION of the running kernel, as headers would give it."""
    numbers = [int("".join(filter(str.isdigit, part)) or 0) for part in _release_parts()]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return (major << 16) + (minor << 8) + min(patch, 255)


def _release_parts() -> list[str]:
    return kernel.release().partition("-")[0].split(".")[:3]


def compiler_flags(plan: Plan, types: btf.KernelBTF) -> list[str]:
    """-D for all that the plan wants to know; raises ProbeError for what is not there."""
    flags = [f"-DPROBETOP_KERNEL_VERSION={kernel_version()}", f"-I{HERE / 'include'}"]
    flags.append("-Werror=implicit-function-declaration")
    flags += [f"-D{name}={value}" for name, value in plan.defines.items()]
    for macro, path in plan.offsets.items():
        found = types.offset(path.rstrip("?"))
        if found is None and path.endswith("?"):
            found = -1
        if found is None:
            raise ProbeError(f"this kernel's types have no {path}", "report this kernel")
        flags.append(f"-D{macro}={found}")
    for macro, name in plan.helpers.items():
        known = types.enumerator("bpf_func_id", name) is not None
        flags.append(f"-D{macro}={int(known)}")
    return flags


def source_of(name: str, seen: set[str] | None = None) -> str:
    """A program's text with our own headers in it, each once.

    BCC rewrites map operations in the main file only, so what has maps cannot be included.
    """
    seen = set() if seen is None else seen
    seen.add(name)
    path = HERE / name if name.endswith(".bpf.c") else HERE / "include" / name
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        included = re.fullmatch(r'#include "(.+)"', line)
        if included is None:
            lines.append(line)
        elif included[1] not in seen:
            lines.append(source_of(included[1], seen))
    return "\n".join(line for line in lines if line != "#pragma once") + "\n"


class Compiler:
    """BCC, imported once, compiling one plan after another (two at once crash it)."""

    def __init__(self) -> None:
        self.bcc = import_bcc()
        self.lib = self.bcc.libbcc.lib

    def load(self, plan: Plan) -> Loaded:
        """Compile, load and attach; raises ProbeError."""
        types = btf.KernelBTF()
        flags = compiler_flags(plan, types)
        try:
            module = self.bcc.BPF(text=source_of(plan.source).encode(), cflags=flags)
        except Exception as error:  # BCC raises plain Exception
            raise ProbeError(f"{plan.source} does not compile ({error})", "see the log") from error
        self.keep = module
        loaded = Loaded(plan.facts, {}, {}, [])
        for name in plan.maps:
            loaded.maps[name] = self.lib.bpf_table_fd(module.module, name.encode())
            if loaded.maps[name] < 0:
                raise ProbeError(f"{plan.source} has no map {name}", REPORT)
        multi = types.enumerator("bpf_attach_type", "BPF_TRACE_UPROBE_MULTI") is not None
        attacher = Attacher(lambda name: self._instructions(module, name), types.function_id, multi)
        if plan.calibrate is not None:
            loaded.facts = {**plan.facts, **plan.calibrate(loaded.maps, attacher.attach)}
            attacher.forget()
        _attach_all(plan, attacher, loaded)
        loaded.programs = attacher.programs
        return loaded

    def _instructions(self, module: Any, function: str) -> bytes:
        name = function.encode()
        start = self.lib.bpf_function_start(module.module, name)
        if not start:
            raise ProbeError(f"there is no program {function}", REPORT)
        return ctypes.string_at(start, self.lib.bpf_function_size(module.module, name))


def _attach_all(plan: Plan, attacher: Attacher, loaded: Loaded) -> None:
    """Attach everything; what is optional, or of a group, may fail by itself."""
    notes: list[str] = []
    for batch in batches(plan.attach):
        wish = batch[0]
        if wish.group in loaded.failures:
            continue
        try:
            links = attacher.attach_batch(batch)
            if wish.keeper is not None:
                _keep(loaded.maps[wish.keeper[0]], wish.keeper[1], links[0])
                continue
            loaded.links += links
            loaded.groups += [wish.group] * len(links)
        except ProbeError as error:
            if wish.group is not None:
                loaded.failures[wish.group] = (error.why, error.fix)
                _detach(loaded, wish.group)
            elif wish.optional:
                notes.append(error.why)
            else:
                raise
    loaded.notes = tuple(dict.fromkeys(notes))


def _keep(events: int, index: int, link: int) -> None:
    """Have a map of perf events keep one attached."""
    try:
        bpfsys.map_update(events, index, link)
    finally:
        os.close(link)


def _detach(loaded: Loaded, group: int) -> None:
    """Detach what is attached of a group already."""
    pairs = list(zip(loaded.links, loaded.groups, strict=True))
    ipc.close_all([fd for fd, of in pairs if of == group])
    loaded.links = [fd for fd, of in pairs if of != group]
    loaded.groups = [of for _, of in pairs if of != group]


def plan_of(path: str, params: Mapping[str, Any]) -> Plan:
    """The plan of a probe given as "module:Class"; raises ProbeError."""
    module, _, name = path.partition(":")
    plan: Callable[[Mapping[str, Any]], Plan] = getattr(import_module(module), name).plan
    return plan(params)


def printed(log: int) -> str:
    """The last of what was written to the log file `log`."""
    size = os.fstat(log).st_size
    data = os.pread(log, LOG_LIMIT, max(0, size - LOG_LIMIT))
    return data.decode(errors="replace")


def _refuse(sock: socket.socket, request: ipc.Message, why: str, fix: str, log: int) -> None:
    text = printed(log)
    told = first_complaint(text)
    answer = {"ok": False, "why": f"{why}: {told}" if told else why, "fix": fix, "log": text}
    ipc.send(sock, {"id": request["id"], **answer})


def first_complaint(text: str) -> str:
    """The line of a compiler's or verifier's output that says what is wrong, "" without any."""
    for pattern in (r"error: (.+)", r"((?:invalid|unknown|jump out|R\d+ ).+)"):
        found = re.search(pattern, text)
        if found:
            return found[1].strip()[:200]
    return ""


def run(sock: socket.socket, log: int) -> None:
    """Serve requests {"id", "path", "params"} until the broker closes the socket."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
    os.dup2(log, 1)
    os.dup2(log, 2)
    compiler: Compiler | None = None
    while (request := ipc.receive(sock)) is not None:
        message, _ = request
        os.ftruncate(log, 0)
        os.lseek(log, 0, os.SEEK_SET)
        try:
            plan = plan_of(message["path"], message["params"])
            compiler = compiler or Compiler()
            loaded = compiler.load(plan)
        except ProbeError as error:
            _refuse(sock, message, error.why, error.fix, log)
            continue
        except Exception as error:  # a bug must say where it is, for nobody sees this process
            os.write(2, traceback.format_exc().encode(errors="replace"))
            _refuse(sock, message, f"the loader failed ({error!r})", REPORT, log)
            continue
        answer = {
            "ok": True,
            "facts": dict(loaded.facts),
            "maps": list(loaded.maps),
            "programs": list(loaded.programs),
            "links": len(loaded.links),
            "notes": list(loaded.notes),
            "groups": loaded.groups,
            "failures": [[group, *words] for group, words in loaded.failures.items()],
            "log": printed(log),
        }
        fds = [*loaded.maps.values(), *loaded.programs.values(), *loaded.links]
        ipc.send(sock, {"id": message["id"], **answer}, fds)
        # The reader's copies keep it all alive; these would, as long as this process lives.
        ipc.close_all(loaded.links)


def selftest() -> dict[str, Any]:
    """Compile and load a small program: {"ok", "bcc", "why", "fix"}."""
    try:
        bcc = import_bcc()
    except ProbeError as error:
        return {"ok": False, "bcc": None, "why": error.why, "fix": error.fix}
    version = getattr(bcc, "__version__", None)
    try:
        module = bcc.BPF(text=SELFTEST, cflags=compiler_flags(Plan("", (), ()), btf.KernelBTF()))
        module.load_func(b"selftest", bcc.BPF.RAW_TRACEPOINT)
    except Exception as error:
        why = f"BCC {version} does not compile or load a small program ({error})"
        return {"ok": False, "bcc": version, "why": why, "fix": "see what it printed above"}
    return {"ok": True, "bcc": version, "why": None, "fix": None}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        result = selftest()
    print(json.dumps(result), flush=True)
    os._exit(0)
