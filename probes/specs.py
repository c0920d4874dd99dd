# SPDX-License-Identifier: Apache-2.0
"""What to time, as a user writes it: bpftrace's syntax, and words for common questions.

    kprobe:F  k:F                       a kernel function, by a kprobe and its return
    fentry:F  kfunc:F  f:F              a kernel function, by fentry and fexit
    func:F                              fentry where the kernel allows it, else kprobe
    uprobe:PATH:F  u:PATH:F             a function of a program or library
    uprobe:PATH:F+16  uprobe:PATH:0x1c  an instruction, by its place or its address
    usdt:PATH:PROVIDER:NAME  U:...      a static probe; two with a comma between are a pair
    tracepoint:CATEGORY:NAME  t:...     a tracepoint; two are a pair, @FIELD,FIELD joins them
    syscall:NAME                        a system call
    runq blockio softirq irq offcpu     presets

F may hold the wildcards * and ?. PATH may be a bare name (bash, libc).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from probes.base import ProbeError
from probes.near import did_you_mean, near, quote

Kind = Literal["kprobe", "fentry", "func", "uprobe", "usdt", "tracepoint", "syscall", "preset"]

PRESETS = {
    "runq": "how long a thread that could run waits for a CPU",
    "blockio": "how long a block device takes for a request",
    "softirq": "how long the handlers of soft interrupts run",
    "irq": "how long the handlers of hardware interrupts run",
    "offcpu": "how long a thread stays off the CPU",
}
"""Targets that need no knowledge, with what they answer."""

KINDS: dict[str, Kind] = {
    "kprobe": "kprobe",
    "k": "kprobe",
    "fentry": "fentry",
    "kfunc": "fentry",
    "f": "fentry",
    "func": "func",
    "uprobe": "uprobe",
    "u": "uprobe",
    "usdt": "usdt",
    "U": "usdt",
    "tracepoint": "tracepoint",
    "t": "tracepoint",
    "syscall": "syscall",
}
"""Every way to write a kind -> the kind."""

RETURNS = {
    "kretprobe": "kprobe",
    "kr": "kprobe",
    "fexit": "fentry",
    "kretfunc": "fentry",
    "fr": "fentry",
    "uretprobe": "uprobe",
    "ur": "uprobe",
}
"""bpftrace's words for returns -> the kind that times the whole call."""

_FORMS = {
    "kprobe": "kprobe:FUNCTION, for example kprobe:vfs_read",
    "fentry": "fentry:FUNCTION, for example fentry:vfs_read",
    "func": "func:FUNCTION, for example func:vfs_read",
    "uprobe": "uprobe:PATH:FUNCTION, for example uprobe:libc:malloc",
    "usdt": "usdt:PATH:PROVIDER:NAME, for example usdt:/usr/bin/python3:python:gc__start",
    "tracepoint": "tracepoint:CATEGORY:NAME, for example tracepoint:sched:sched_switch",
    "syscall": "syscall:NAME, for example syscall:read",
}
_PAIR = re.compile(r",(?=(?:usdt|U|tracepoint|t):)")
_KERNEL_NAME = re.compile(r"[\w.$*?]+", re.ASCII)
_WORD = re.compile(r"\w+", re.ASCII)
_OFFSET = re.compile(r"(.+)\+(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19})", re.DOTALL)
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{1,16}")


@dataclass(frozen=True, slots=True)
class Spec:
    """One target; `text` is its normal form, and `parse` of it is the same Spec.

    Kernel functions have `symbol`; uprobes `path` and `symbol`, `offset` in bytes behind it
    (None when none was given), or with an empty `symbol` an address as the ELF file numbers
    it. USDT has `path`, `provider` ("" for any) and `name`; tracepoints `provider` (their
    category) and `name`; system calls and presets `name`. `end` is the second of a pair,
    `fields` join a pair of tracepoints (none: the thread). `wildcard` tells that `symbol`
    holds * or ?; a symbol with exactly that name comes first, for Go's contain asterisks.
    """

    text: str
    kind: Kind
    path: str = ""
    symbol: str = ""
    offset: int | None = None
    provider: str = ""
    name: str = ""
    end: Spec | None = None
    fields: tuple[str, ...] = ()
    wildcard: bool = False

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Spec:
    """The target that `text` names; raises ProbeError for whatever is not in the grammar."""
    text = text.strip()
    if not text.isprintable():
        raise ProbeError(
            f"the target {quote(text)} has characters that cannot be shown",
            "give the file a plain name, by a link for example",
        )
    if text in PRESETS:
        return Spec(text, "preset", name=text)
    kind, rest = _kind(text)
    if kind in ("kprobe", "fentry", "func"):
        return _kernel(kind, rest)
    if kind == "uprobe":
        return _uprobe(rest)
    if kind == "syscall":
        return _syscall(rest)
    return _pair(kind, text)


def _kind(text: str) -> tuple[Kind, str]:
    """The kind and what is behind its colon."""
    word, colon, rest = text.partition(":")
    if not text:
        raise ProbeError("the target is empty", f"write {_FORMS['func']}, or {_presets()}")
    if colon and word in KINDS:
        return KINDS[word], rest
    if colon and word in RETURNS:
        kind = RETURNS[word]
        raise ProbeError(
            f"{word} is not needed: a call is timed from its start to its return",
            f"write {kind}:{rest if rest.isascii() else 'FUNCTION'}",
        )
    known = [*KINDS, *PRESETS] if not colon else list(KINDS)
    found = near(word, [name for name in known if len(name) > 1])
    if not colon:
        otherwise = f"write {_FORMS['func']}, {_FORMS['syscall']}, or {_presets()}"
        raise ProbeError(
            f"the target {quote(text)} names no kind and is no preset",
            did_you_mean(found, otherwise),
        )
    kinds = f"kinds are {', '.join(dict.fromkeys(KINDS.values()))}"
    raise ProbeError(f"{quote(word)} is no kind of target", did_you_mean(found, kinds))


def _presets() -> str:
    return "a preset: " + ", ".join(PRESETS)


def _bad(text: str, kind: str, why: str) -> ProbeError:
    return ProbeError(f"{quote(text)} {why}", f"write {_FORMS[kind]}")


def _kernel(kind: Kind, name: str) -> Spec:
    if not name:
        raise ProbeError(f"{kind} needs the name of a kernel function", f"write {_FORMS[kind]}")
    if "," in name:
        raise ProbeError(
            "only static probes and tracepoints make pairs with a comma",
            "give each function its own -f, or use a wildcard",
        )
    if ":" in name:
        raise ProbeError(
            f"{quote(name)} is no kernel function: it is named without its module",
            f"write {_FORMS[kind]}",
        )
    if "+" in name:
        raise ProbeError(
            f"{quote(name)} is inside of a function, but whole calls are timed",
            "leave out what begins with +",
        )
    if not _KERNEL_NAME.fullmatch(name):
        raise _bad(name, kind, "cannot be the name of a kernel function")
    return Spec(f"{kind}:{name}", kind, symbol=name, wildcard=_is_pattern(name))


def _is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


def _uprobe(rest: str) -> Spec:
    path, colon, symbol = rest.rpartition(":")
    if path.endswith(":"):
        raise ProbeError(
            f"{quote(rest)} names a C++ or Rust function as in its source",
            "write its symbol, or a wildcard such as *name*",
        )
    if not colon or not path.strip() or not symbol.strip():
        raise _bad(rest, "uprobe", "is no file and function")
    path, symbol = path.strip(), symbol.strip()
    if symbol[0].isdigit():
        if not _ADDRESS.fullmatch(symbol):
            raise ProbeError(
                f"{quote(symbol)} is neither a function nor an address",
                "write an address as in the ELF file, for example 0x1c20",
            )
        address = int(symbol, 16)
        return Spec(f"uprobe:{path}:{address:#x}", "uprobe", path, offset=address)
    found = _OFFSET.fullmatch(symbol)
    if found is None:
        return Spec(f"uprobe:{path}:{symbol}", "uprobe", path, symbol, wildcard=_is_pattern(symbol))
    name, offset = found[1].strip(), int(found[2], 0 if found[2][1:2] in "xX" else 10)
    if _is_pattern(name) or _OFFSET.fullmatch(name):
        raise ProbeError(
            f"{quote(symbol)} is no single place in a function",
            "an offset goes with one function's whole name",
        )
    return Spec(f"uprobe:{path}:{name}+{offset:#x}", "uprobe", path, name, offset)


def _syscall(name: str) -> Spec:
    if not _WORD.fullmatch(name):
        why = "needs one system call's name" if _is_pattern(name) or not name else ""
        raise ProbeError(
            f"syscall {why}" if why else f"{quote(name)} is no system call",
            f"write {_FORMS['syscall']}",
        )
    return Spec(f"syscall:{name}", "syscall", name=name)


def _pair(kind: Kind, text: str) -> Spec:
    """A static probe or tracepoint, or two of them."""
    parts = _PAIR.split(text)
    if len(parts) > 2:
        raise ProbeError(
            f"{quote(text)} has {len(parts)} probes, and a pair has two",
            "give each pair its own -f",
        )
    if len(parts) == 2 and _kind(parts[1])[0] != kind:
        raise ProbeError("the two ends of a pair must be of one kind", f"write two of {kind}")
    at = joined = ""
    if kind == "tracepoint":
        parts[-1], at, joined = parts[-1].partition("@")
    one = _usdt if kind == "usdt" else _tracepoint
    specs = [one(_kind(part)[1].strip()) for part in parts]
    fields = tuple(field.strip() for field in joined.split(",")) if at else ()
    if at and len(specs) == 1:
        raise ProbeError(
            f"@ joins the two ends of a pair, but {quote(parts[0])} is one tracepoint",
            "leave it out, or add the second with a comma before the @",
        )
    for field in fields:
        if not _WORD.fullmatch(field):
            raise ProbeError(
                f"{quote(field)} is no name of a field",
                "write the fields that both tracepoints have, @dev,sector",
            )
    if len(specs) == 1:
        return specs[0]
    start, end = specs
    normal = f"{start},{end}" + ("@" + ",".join(fields) if fields else "")
    return Spec(
        normal, kind, start.path, provider=start.provider, name=start.name, end=end, fields=fields
    )


def _usdt(rest: str) -> Spec:
    parts = [part.strip() for part in rest.split(":")]
    path, provider, name = ":".join(parts[:-2]), parts[-2] if len(parts) > 1 else "", parts[-1]
    if len(parts) == 2:
        path, provider = provider, ""
    if not path.strip(":") or not name or (len(parts) > 2 and not provider):
        raise _bad(rest, "usdt", "is no file, provider and static probe")
    wrong = [
        word for word in (provider or "x", name) if not _WORD.fullmatch(word.replace("-", "_"))
    ]
    if wrong:
        hint = " (two make a pair when the second has its usdt: too)" if "," in rest else ""
        raise _bad(wrong[0], "usdt", f"is no name of a static probe{hint}")
    normal = ":".join(["usdt", path, *([provider] if provider else []), name])
    return Spec(normal, "usdt", path, provider=provider, name=name)


def _tracepoint(rest: str) -> Spec:
    category, colon, name = rest.partition(":")
    if _is_pattern(rest):
        raise ProbeError(
            "wildcards are for functions, and a tracepoint is named whole",
            f"write {_FORMS['tracepoint']}",
        )
    if not colon or not _WORD.fullmatch(category.replace("-", "_")) or not _WORD.fullmatch(name):
        hint = " (two make a pair when the second has its tracepoint: too)" if "," in name else ""
        raise _bad(rest, "tracepoint", f"is no category and tracepoint{hint}")
    return Spec(f"tracepoint:{category}:{name}", "tracepoint", provider=category, name=name)
