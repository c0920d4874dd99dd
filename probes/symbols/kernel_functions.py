# SPDX-License-Identifier: Apache-2.0
"""Which functions this kernel has, and why one of them cannot be traced.

From /proc/kallsyms (every symbol), the BTF of kernel and modules (functions that fentry
knows), tracefs' available_filter_functions (those whose first instruction can be patched;
unreadable under lockdown, absent without function tracing) and debugfs' list of functions
that kprobes refuse. Any of them may be missing: what is unknown is None and forbids nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

from probes.bpf import btf_functions
from probes.core import kernel, syscall_names
from probes.core.errors import ProbeError
from probes.core.suggestions import did_you_mean, near, quote
from probes.symbols.binaries import LIMIT, check_matches, is_fragment
from probes.symbols.globs import matching

Mechanism = Literal["fentry", "kprobe"]

_NO_MODULES = ("bpf", "__builtin__ftrace", "__builtin__kprobes")
"""What kallsyms calls modules, but no probe by name reaches."""
_PREFIXES = (".", "__pfx_", "__cfi_", "__pi_", "__SCT__", "__ksymtab", "__ftrace_invalid_address")
"""Beginnings of symbols that are no function of their own."""
_SUFFIXES = {
    "isra": "changed the arguments of",
    "constprop": "specialised for constant arguments",
    "part": "inlined the beginning of",
    "llvm": "renamed",
}
"""What a compiler did to a function that has this in its name's suffix."""
_SYSCALL_PREFIX = {"x86_64": "__x64_sys_", "arm64": "__arm64_sys_"}


@dataclass(frozen=True, slots=True)
class KernelFunction:
    """One function of the kernel and what may be attached to it.

    `module` is "" for the kernel itself; `btf` tells whether BTF describes it (fentry needs
    that), `patchable` whether its beginning can be patched (every probe needs that where
    the kernel traces functions), `blacklisted` that kprobes refuse it; None is unknown.
    """

    name: str
    module: str = ""
    btf: bool = False
    patchable: bool | None = None
    blacklisted: bool | None = None

    @property
    def fentry(self) -> bool:
        """Whether nothing known speaks against fentry."""
        return self.btf and self.patchable is not False

    @property
    def kprobe(self) -> bool:
        """Whether nothing known speaks against a kprobe."""
        return not self.blacklisted and self.patchable is not False


@dataclass(frozen=True)
class Where:
    """Where a kernel shows what it has; a `tracefs` or `debugfs` of None is not there."""

    kallsyms: Path = Path("/proc/kallsyms")
    btf: Path = Path("/sys/kernel/btf")
    tracefs: Path | None = None
    debugfs: Path | None = None
    modules: Path | None = None

    @classmethod
    def here(cls) -> Where:
        """The running kernel's, with tracefs mounted if we may."""
        debugfs = kernel.mount_points("debugfs")
        return cls(
            tracefs=kernel.tracefs(),
            debugfs=Path(debugfs[0]) if debugfs else None,
            modules=Path("/lib/modules") / kernel.release(),
        )


class Kernel:
    """The functions and tracepoints of one kernel, each list read when it is first asked for."""

    def __init__(self, where: Where | None = None) -> None:
        self.where = where or Where.here()

    @cached_property
    def _kallsyms(self) -> bytes:
        return _read(self.where.kallsyms)

    def _symbols(self, name: str) -> list[tuple[str, str]]:
        """(type, module) of every symbol of that name."""
        data, found = self._kallsyms, []
        word = b" " + name.encode("utf-8", "replace")
        at = data.find(word)
        # A search for bytes takes 2 ms where splitting all lines takes 100.
        while at >= 0:
            end = at + len(word)
            if data[end : end + 1] in (b"\n", b"\t", b""):
                line = data[end : data.find(b"\n", end)]
                module = line.strip(b"\t[]").decode()
                if module not in _NO_MODULES:
                    found.append((data[at - 1 : at].decode(), module))
            at = data.find(word, end)
        return found

    @cached_property
    def functions(self) -> Mapping[str, str]:
        """Every function that has code of its own -> its module, "" for the kernel itself.

        Without those whose name several have, for a probe would meet one of them, unsaid
        which. Where the kernel has no kallsyms, the functions of its BTF.
        """
        lines = re.findall(rb" [tTwW] (\S+)(?:\t\[(\S+)\])?", self._kallsyms)
        rows = ((name.decode(), module.decode()) for name, module in lines)
        found: dict[str, str] = {}
        again: set[str] = set()
        for name, module in rows:
            if name in found:
                again.add(name)
            elif not name.startswith(_PREFIXES) and module not in _NO_MODULES:
                found[name] = module
        for name in again:
            del found[name]
        return found or dict.fromkeys(self.btf_ids, "")

    @cached_property
    def patchable(self) -> frozenset[str] | None:
        """Functions whose beginning can be patched, None where the kernel does not say."""
        if self.where.tracefs is None:
            return None
        data = _read(self.where.tracefs / "available_filter_functions")
        return frozenset(line.split(" ", 1)[0] for line in data.decode().splitlines()) or None

    @cached_property
    def blacklist(self) -> frozenset[str] | None:
        """Functions that kprobes refuse, None where the kernel does not say."""
        if self.where.debugfs is None:
            return None
        data = _read(self.where.debugfs / "kprobes" / "blacklist")
        return frozenset(line.split()[-1] for line in data.decode().splitlines() if line) or None

    @cached_property
    def _vmlinux(self) -> bytes:
        return _read(self.where.btf / "vmlinux")

    @cached_property
    def btf_ids(self) -> Mapping[str, int]:
        """The kernel's own functions that its BTF describes -> their type numbers."""
        found: dict[str, int] = {}
        for name, number in btf_functions.btf_functions(self._vmlinux):
            # libbpf takes the first of several, too.
            found.setdefault(name, number)
        return found

    def _in_btf(self, name: str, module: str) -> bool:
        if module:
            return btf_functions.describes(_read(self.where.btf / module), name, self._vmlinux)
        if "btf_ids" in self.__dict__:
            return name in self.btf_ids
        return btf_functions.describes(self._vmlinux, name)

    def function(self, name: str, mechanism: Mechanism | None = None) -> KernelFunction:
        """What can be attached to a function; raises ProbeError if nothing, or not `mechanism`."""
        code = [module for kind, module in self._symbols(name) if kind in "tTwW"]
        if not code and (self._kallsyms or not self._in_btf(name, "")):
            raise self._absent(name)
        if len(code) > 1:
            why = f"this kernel has {len(code)} functions called {name}, a probe would meet one"
            raise ProbeError(why, "trace what calls them, or what they call")
        if is_fragment(name):
            why = f"{name} is the rarely run part of a function, entered by a jump"
            raise ProbeError(why, f"trace {name.partition('.cold')[0]}")
        found = self._describe(name, code[0] if code else "")
        if mechanism == "fentry" and not found.fentry:
            raise self._no_fentry(found)
        if found.patchable is False:
            why = f"the kernel lets no probe into {name} (notrace)"
            raise ProbeError(why, "trace what calls it, or what it calls")
        if found.blacklisted and mechanism != "fentry":
            why = f"kprobes refuse {name}, for it runs while a probe is handled (blacklist)"
            only = f"trace what calls it, or write fentry:{name} if it must be"
            raise ProbeError(why, only if found.fentry else "trace what calls it")
        return found

    def _describe(self, name: str, module: str) -> KernelFunction:
        patchable = None if self.patchable is None else name in self.patchable
        blacklisted = None if self.blacklist is None else name in self.blacklist
        return KernelFunction(name, module, self._in_btf(name, module), patchable, blacklisted)

    def _no_fentry(self, found: KernelFunction) -> ProbeError:
        name = found.name
        if found.patchable is False:
            why = f"fentry cannot trace {name}: the kernel lets no probe into it (notrace)"
            return ProbeError(why, "trace what calls it, or what it calls")
        fix = f"write kprobe:{name}, or func:{name} for what is possible"
        if not self._vmlinux:
            return ProbeError(
                "fentry needs the kernel's type information (BTF), which is not there", fix
            )
        why = f"fentry cannot trace {name}: the kernel's BTF does not describe it"
        return ProbeError(why, fix)

    def _absent(self, name: str) -> ProbeError:
        """Why there is no function of that name."""
        shown = quote(name)
        if not self.functions:
            why = "this kernel tells no function names (/proc/kallsyms and BTF are missing)"
            return ProbeError(why, "use tracepoints or system calls")
        variants = sorted(n for n in self.functions if n.startswith(name + "."))
        whole = [n for n in variants if not is_fragment(n)]
        if whole:
            word = whole[0].removeprefix(name).split(".")[1]
            did = _SUFFIXES.get(word, "renamed")
            why = f"the compiler {did} {shown}, and what is left of it is {whole[0]}"
            return ProbeError(why, f"trace {' or '.join(whole[:3])}")
        if self._symbols(name):
            return ProbeError(f"{shown} is data of the kernel, not a function", "name a function")
        if variants or name in self.btf_ids:
            why = f"the compiler inlined {shown} where it is called, so that it has no code"
            return ProbeError(why, "trace what calls it")
        module = self._exporter(name)
        if module:
            why = f"{shown} is in the module {module}, which is not loaded"
            return ProbeError(why, f"modprobe {module}")
        called = _SYSCALL_PREFIX.get(kernel.arch() or "", "sys_") + name.removeprefix("sys_")
        found = [called] if called in self.functions else near(name, self.functions)
        otherwise = "look for it with f; it may be inlined, or in a module that is not loaded"
        return ProbeError(f"this kernel has no function {shown}", did_you_mean(found, otherwise))

    def _exporter(self, name: str) -> str:
        """The module that exports a symbol, as depmod noted it; "" if none is known."""
        if self.where.modules is None:
            return ""
        text = kernel.read_text(self.where.modules / "modules.symbols") or ""
        found = re.search(rf"^alias symbol:{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return found[1] if found else ""

    def traceable(self, mechanism: Mechanism | None = None) -> list[str]:
        """Every function that `mechanism` (None: either) may trace, sorted.

        Without what kprobes refuse, for fentry in the midst of handling a probe is no better.
        A module's functions are taken to have BTF; one that has not says so when attached.
        """
        names = {name for name in self.functions if not is_fragment(name)}
        blocked = self.blacklist or frozenset()
        if self.patchable is not None:
            names &= self.patchable
        names -= blocked
        if mechanism == "fentry":
            names = {n for n in names if n in self.btf_ids or self.functions[n]}
        return sorted(names)

    def expand(
        self, pattern: str, mechanism: Mechanism | None = None, limit: int = LIMIT
    ) -> list[KernelFunction]:
        """Functions that match a pattern of * and ?, sorted; raises ProbeError for none or many."""
        found = list(matching(pattern, self.traceable(mechanism)))
        check_matches(pattern, len(found), limit, " of this kernel")
        return [self._describe(name, self.functions[name]) for name in found]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@cache
def this_kernel() -> Kernel:
    """The running kernel, as it was when first asked for."""
    return Kernel()


def syscall_number(name: str) -> int:
    """The number of a system call on this machine; raises ProbeError if it has none such."""
    machine = kernel.machine()
    number = syscall_names.nr_of(name, machine)
    if number is not None:
        return number
    known = syscall_names.table(syscall_names.ALIASES.get(machine, machine)).values()
    fix = did_you_mean(near(name, known), "see man 2 syscalls", "syscall:")
    raise ProbeError(f"{kernel.machine()} has no system call {quote(name)}", fix)
