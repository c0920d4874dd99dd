# SPDX-License-Identifier: Apache-2.0
"""The process that imports BCC: compiles, loads, attaches, hands over descriptors, ends.

It is the only file that imports bcc, and does so only for what was never compiled here (see
`probes.bpf.object_cache`). It lives for less than a second as a child of the
broker, so that LLVM's 130 MB and its crashes go with it. What BCC and libbpf print goes to
descriptor 2, which the broker has made a file: it becomes part of the error message.

Its answer has the descriptors of maps, which go on to the dashboard, and those of programs and
links, which the broker keeps: whoever holds a program can attach it to anything. Maps are frozen,
so that their holder can only read them, but for control pages and ring buffers.
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
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from probes import FOLDER
from probes.bpf import bpf_syscall, btf, object_cache
from probes.bpf.attach import Attacher
from probes.bpf.object_cache import Compiled, MapShape
from probes.bpf.plan import Plan
from probes.bpf.program_loader import Made
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.ipc import messages, packets

LOG_LIMIT = 16_000
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
    os.environ["BCC_KERNEL_SOURCE"] = str(FOLDER)
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
    major, minor, patch = kernel.version()
    return (major << 16) + (minor << 8) + min(patch, 255)


def compiler_flags(plan: Plan, types: btf.KernelBTF) -> list[str]:
    """-D for all that the plan wants to know; raises ProbeError for what is not there."""
    flags = [f"-DPROBETOP_KERNEL_VERSION={kernel_version()}", f"-I{FOLDER / 'include'}"]
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
    for macro, name in plan.functions.items():
        number = types.function_id(name)
        if number is not None:
            flags.append(f"-D{macro}={object_cache.KERNEL_FUNCTIONS + number}")
    return flags


def source_of(name: str, seen: set[str] | None = None) -> str:
    """A program's text with our own headers in it, each once.

    BCC rewrites map operations in the main file only, so what has maps cannot be included.
    """
    seen = set() if seen is None else seen
    seen.add(name)
    path = FOLDER / name if name.endswith(".bpf.c") else FOLDER / "include" / name
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        included = re.fullmatch(r'#include "(.+)"', line)
        if included is None:
            lines.append(line)
        elif included[1] not in seen:
            lines.append(source_of(included[1], seen))
    return "\n".join(line for line in lines if line != "#pragma once") + "\n"


class Compiler:
    """One plan after another; BCC is imported for the first that was never compiled here."""

    def __init__(self) -> None:
        self._bcc: Any = None
        self._stamp = compiler_stamp()

    def load(self, plan: Plan) -> Made:
        """Compile unless that was done before, load and attach; raises ProbeError."""
        types = btf.KernelBTF()
        code = self.compile(plan.source, compiler_flags(plan, types))
        fds = _make_maps(code.maps)
        by_name = {shape.name: fd for shape, fd in zip(code.maps, fds, strict=True)}
        for name in plan.maps:
            if name not in by_name:
                raise ProbeError(f"{plan.source} has no map {name}", REPORT)
        numbers = dict(enumerate(fds))
        multi = types.enumerator("bpf_attach_type", "BPF_TRACE_UPROBE_MULTI") is not None
        attacher = Attacher(
            lambda name: object_cache.with_maps(_function(code, name), numbers),
            types.function_id,
            multi,
        )
        made = Made(plan.facts, by_name)
        if plan.calibrate is not None:
            made.facts = {**plan.facts, **plan.calibrate(by_name, attacher.attach)}
            attacher.forget()
        before = plan.gauge() if plan.gauge else 0.0
        made.attach_all(plan.attach, attacher)
        if plan.gauge is not None:
            made.facts = {**made.facts, "per_call": max(0.0, plan.gauge() - before)}
        made.programs, made.recipes = list(attacher.programs.values()), attacher.recipes
        made.part(code.maps, plan.maps, plan.writable)
        made.hold_files()
        return made

    def compile(self, source: str, flags: Sequence[str]) -> Compiled:
        """The programs and maps of a source file; raises ProbeError."""
        text = source_of(source)
        key = object_cache.key_of(text, flags, self._stamp)
        made = object_cache.load(key)
        if made is None:
            self._bcc = self._bcc or import_bcc()
            made = _compiled(self._bcc, source, text, flags)
            object_cache.store(key, made)
        return made


def compiler_stamp() -> str:
    """What changes when another BCC is installed."""
    stamps = []
    for directory in kernel.find_bcc():
        for name in ("__init__.py", "version.py"):
            with contextlib.suppress(OSError):
                found = os.stat(Path(directory, "bcc", name))
                stamps.append(f"{directory} {name} {found.st_mtime_ns} {found.st_size}")
    return "; ".join(stamps)


def _compiled(bcc: Any, source: str, text: str, flags: Sequence[str]) -> Compiled:
    """BCC's own maps and loaded code go with its module: what stays are instructions."""
    try:
        module = bcc.BPF(text=text.encode(), cflags=list(flags))
    except Exception as error:  # BCC raises plain Exception
        raise ProbeError(f"{source} does not compile ({error})", "see the log") from error
    lib, mod = bcc.libbcc.lib, ctypes.c_void_p(module.module)
    # BCC's own module tells ctypes of all but this one.
    lib.bpf_table_name.restype = ctypes.c_char_p
    count = lib.bpf_num_tables(mod)
    shapes = [
        MapShape(
            lib.bpf_table_name(mod, n).decode(),
            lib.bpf_table_type_id(mod, n),
            lib.bpf_table_key_size_id(mod, n),
            lib.bpf_table_leaf_size_id(mod, n),
            lib.bpf_table_max_entries_id(mod, n),
            lib.bpf_table_flags_id(mod, n),
        )
        for n in range(count)
    ]
    numbers = {lib.bpf_table_fd_id(mod, n): n for n in range(count)}
    code = {}
    for n in range(lib.bpf_num_functions(mod)):
        name = lib.bpf_function_name(mod, n)
        start, size = lib.bpf_function_start(mod, name), lib.bpf_function_size(mod, name)
        made = object_cache.with_maps(ctypes.string_at(start, size), numbers)
        code[name.decode()] = object_cache.with_functions(made)
    return Compiled(tuple(shapes), code)


def _make_maps(shapes: Sequence[MapShape]) -> list[int]:
    fds: list[int] = []
    for shape in shapes:
        sizes = shape.kind, shape.key, shape.value, shape.entries, shape.flags
        try:
            fds.append(bpf_syscall.map_create(*sizes, name=shape.name))
        except OSError as error:
            packets.close_all(fds)
            why = f"the kernel refused the map {shape.name} ({error.strerror})"
            raise ProbeError(why, "run probetop doctor") from error
    return fds


def _function(made: Compiled, name: str) -> bytes:
    if name not in made.code:
        raise ProbeError(f"there is no program {name}", REPORT)
    return made.code[name]


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


def _refuse(sock: socket.socket, request: packets.Message, why: str, fix: str, log: int) -> None:
    text = printed(log)
    told = first_complaint(text)
    answer = {"ok": False, "why": f"{why}: {told}" if told else why, "fix": fix, "log": text}
    packets.send(sock, {"id": request["id"], **answer})


def first_complaint(text: str) -> str:
    """The line of a compiler's or verifier's output that says what is wrong, "" without any."""
    for pattern in (r"error: (.+)", r"((?:invalid|unknown|jump out|R\d+ ).+)"):
        found = re.search(pattern, text)
        if found:
            return found[1].strip()[:200]
    return ""


def run(sock: socket.socket, log: int) -> None:
    """Serve requests {"id", "path", "params"} until the broker closes the socket."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    compiler: Compiler | None = None
    while (request := packets.receive(sock)) is not None:
        message: Any = request[0]
        os.ftruncate(log, 0)
        os.lseek(log, 0, os.SEEK_SET)
        try:
            plan = plan_of(message["path"], message["params"])
            compiler = compiler or Compiler()
            _hand_over(sock, message["id"], compiler.load(plan), log)
        except ProbeError as error:
            _refuse(sock, message, error.why, error.fix, log)
        except messages.MessageError as error:
            _refuse(
                sock, message, f"the probe does not know what it is asked for ({error})", "", log
            )
        except Exception as error:  # a bug must say where it is, for nobody sees this process
            os.write(2, traceback.format_exc().encode(errors="replace"))
            _refuse(sock, message, f"the loader failed ({error!r})"[:500], REPORT, log)


def _hand_over(sock: socket.socket, request: int, made: Made, log: int) -> None:
    """Answer with what was made; raises ProbeError if the answer does not fit into a message."""
    try:
        packets.send(
            sock, {"id": request, "ok": True, **made.answer(), "log": printed(log)}, made.fds
        )
    except ValueError:
        why = "what there is to tell of these targets is too much for one message"
        raise ProbeError(why, "trace less at once, or by shorter names") from None
    finally:
        # The broker's copies keep it all alive; these would, as long as this process lives.
        packets.close_all(made.fds)


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
