# SPDX-License-Identifier: Apache-2.0
"""What to time, as a user writes it: bpftrace's syntax, and words for common questions.

    kprobe:F  k:F                       a kernel function, by a kprobe and its return
    fentry:F  kfunc:F  f:F              a kernel function, by fentry and fexit
    func:F                              fentry where the kernel allows it, else kprobe
    uprobe:PATH:F  u:PATH:F             a function of a program or library
    uprobe:PATH:app::Cart<int>::add     a C++ or Rust function by its name in the source
    uprobe:PATH:F+16  uprobe:PATH:0x1c  an instruction, by its place or its address
    usdt:PATH:PROVIDER:NAME  U:...      a static probe; two with a comma between are a pair
    tracepoint:CATEGORY:NAME  t:...     a tracepoint; two with a comma between are a pair
    PAIR@FIELD,FIELD                    ends belong to starts with the same values (else thread)
    PROBE@FIELD                         how large a value is, of a probe or tracepoint by itself
    ...@str(arg1)                       calls told apart by a text, of static probes
    syscall:NAME                        a system call
    runq blockio softirq irq offcpu     presets

F may hold the wildcards * and ?. PATH may be a bare name (bash, libc). FIELD is a field of
a tracepoint's record, or arg0, arg1 and so on of a static probe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from probes.core.errors import ProbeError
from probes.core.suggestions import did_you_mean, near, quote
from probes.host.file_access import Asker

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
MOST_TEXT = 16_384
"""Characters of the longest target: a pair with two of the longest paths."""
_PAIR = re.compile(r",(?=(?:usdt|U|tracepoint|t):)")
_KERNEL_NAME = re.compile(r"[\w.$*?]+", re.ASCII)
_WORD = re.compile(r"\w+", re.ASCII)
_AT = re.compile(r"(.*)@([^@:/]*)", re.DOTALL)
_ARGUMENT = re.compile(r"arg[0-9]{1,2}")
_TEXT = re.compile(r"str\(\s*+(\w*+)\s*+\)", re.ASCII)
_OFFSET = re.compile(r"(.+)\+(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19})", re.DOTALL)
_VALUE = re.compile(r"@\s*(str\s{0,9}\(|arg[0-9])")
_COLON = re.compile(r"(?<!:)(?<!\[abi):(?!:)")
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{1,16}")


@dataclass(frozen=True, slots=True)
class Spec:
    """One target; `text` is its normal form, and `parse` of it is the same Spec.

    Kernel functions have `symbol`; uprobes `path` and `symbol`, `offset` in bytes behind it
    (None when none was given), or with an empty `symbol` an address as the ELF file numbers
    it. USDT has `path`, `provider` ("" for any) and `name`; tracepoints `provider` (their
    category) and `name`; system calls and presets `name`. `end` is the second of a pair,
    `fields` join a pair (none: the thread); of a single one, the value that is measured.
    `text_field` is the argument
    whose text tells calls apart. `wildcard` tells that `symbol` holds
    * or ?; a symbol with exactly that name comes first, for Go's contain asterisks.
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
    text_field: str = ""
    wildcard: bool = False

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Spec:
    """The target that `text` names; raises ProbeError for whatever is not in the grammar."""
    text = text.strip()
    if len(text) > MOST_TEXT:
        why = f"the target {quote(text)} has {len(text)} characters"
        raise ProbeError(why, f"shorten it, {MOST_TEXT} are the most")
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
    _no_values(name)
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
    return Spec(f"{kind}:{name}", kind, symbol=name, wildcard=is_pattern(name))


def is_pattern(name: str) -> bool:
    """Whether a name holds a wildcard."""
    return "*" in name or "?" in name


def _uprobe(rest: str) -> Spec:
    path, colon, symbol = _file_and_name(rest)
    if not colon or not path.strip() or not symbol.strip():
        raise _bad(rest, "uprobe", "is no file and function")
    path, symbol = path.strip(), symbol.strip()
    _no_values(symbol)
    if symbol[0].isdigit() and "::" not in symbol:
        if not _ADDRESS.fullmatch(symbol):
            raise ProbeError(
                f"{quote(symbol)} is neither a function nor an address",
                "write an address as in the ELF file, for example 0x1c20",
            )
        address = int(symbol, 16)
        return Spec(f"uprobe:{path}:{address:#x}", "uprobe", path, offset=address)
    found = _OFFSET.fullmatch(symbol)
    if found is None:
        return Spec(f"uprobe:{path}:{symbol}", "uprobe", path, symbol, wildcard=is_pattern(symbol))
    name, offset = found[1].strip(), int(found[2], 0 if found[2][1:2] in "xX" else 10)
    if is_pattern(name) or _OFFSET.fullmatch(name):
        raise ProbeError(
            f"{quote(symbol)} is no single place in a function",
            "an offset goes with one function's whole name",
        )
    return Spec(f"uprobe:{path}:{name}+{offset:#x}", "uprobe", path, name, offset)


def _file_and_name(rest: str) -> tuple[str, str, str]:
    """What is before the colon that ends a path, the colon, and what is behind.

    It is the last one but for the pairs in a C++ or Rust function's readable name.
    """
    found = list(_COLON.finditer(rest))
    at = found[-1].start() if found else len(rest)
    return rest[:at], rest[at : at + 1], rest[at + 1 :]


def is_name(text: str) -> bool:
    """Whether a function's name can stand in a target: no part of it would be a path."""
    return _COLON.search(text) is None and ("::" in text or not text[0].isdigit())


def _no_values(name: str) -> None:
    """Raises ProbeError for a value or text behind what has none."""
    if _VALUE.search(name):
        raise ProbeError(
            f"{quote(name)}: values and texts are read at static probes and tracepoints only",
            "leave out what begins with @, or name a tracepoint's field: t:CATEGORY:NAME@FIELD",
        )


def _syscall(name: str) -> Spec:
    _no_values(name)
    if not _WORD.fullmatch(name):
        why = "needs one system call's name" if is_pattern(name) or not name else ""
        raise ProbeError(
            f"syscall {why}" if why else f"{quote(name)} is no system call",
            f"write {_FORMS['syscall']}",
        )
    return Spec(f"syscall:{name}", "syscall", name=name)


def _pair(kind: Kind, text: str) -> Spec:
    """A static probe or tracepoint, or two of them, with what is behind an @."""
    parts = _PAIR.split(text)
    if len(parts) > 2:
        raise ProbeError(
            f"{quote(text)} has {len(parts)} probes, and a pair has two",
            "give each pair its own -f",
        )
    if len(parts) == 2 and _kind(parts[1])[0] != kind:
        raise ProbeError("the two ends of a pair must be of one kind", f"write two of {kind}")
    for early in parts[:-1]:
        if _AT.fullmatch(early):
            why = f"{quote(early)} has an @, which belongs behind the second of a pair"
            raise ProbeError(why, "write START,END@FIELD")
    found = _AT.fullmatch(parts[-1])
    joined = None
    if found is not None:
        parts[-1], joined = found[1], found[2]
    one = _usdt if kind == "usdt" else _tracepoint
    start, *rest = [one(_kind(part)[1].strip()) for part in parts]
    fields: tuple[str, ...] = ()
    text_field = ""
    if joined is not None:
        fields, text_field = _fields(kind, joined, single=not rest)
    end = rest[0] if rest else None
    normal = f"{start},{end}" if end else start.text
    behind = [*fields, *([f"str({text_field})"] if text_field else [])]
    normal += "@" + ",".join(behind) if behind else ""
    return replace(start, text=normal, end=end, fields=fields, text_field=text_field)


def _fields(kind: Kind, joined: str, single: bool) -> tuple[tuple[str, ...], str]:
    """What is behind the @: fields, and the argument of str()."""
    fields: list[str] = []
    texts: list[str] = []
    for word in joined.split(","):
        word = word.strip()
        inner = _TEXT.fullmatch(word)
        name = inner[1] if inner else word
        if kind == "usdt" and not _ARGUMENT.fullmatch(name):
            raise ProbeError(
                f"{quote(word)} is no argument of a static probe",
                "write arg0, arg1 and so on, or str(arg0) for a text",
            )
        if inner and kind != "usdt":
            why = "texts of tracepoints cannot be read here, only those of static probes"
            raise ProbeError(why, "name a field that is a number")
        if not _WORD.fullmatch(name):
            raise ProbeError(
                f"{quote(word)} is no name of a field",
                "write the fields that both tracepoints have, @dev,sector",
            )
        (texts if inner else fields).append(name)
    if len(fields) > 2 or len(texts) > 1:
        why = f"{quote(joined)} names too much behind the @"
        raise ProbeError(why, "two fields and one text are the most")
    if single and len(fields) > 1:
        why = f"one event has one value to measure, and {quote(joined)} names {len(fields)}"
        raise ProbeError(why, "name one, or add the second event of a pair before the @")
    return tuple(fields), "".join(texts)


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
    if is_pattern(rest):
        raise ProbeError(
            "wildcards are for functions, and a tracepoint is named whole",
            f"write {_FORMS['tracepoint']}",
        )
    if not colon or not _WORD.fullmatch(category.replace("-", "_")) or not _WORD.fullmatch(name):
        hint = " (two make a pair when the second has its tracepoint: too)" if "," in name else ""
        raise _bad(rest, "tracepoint", f"is no category and tracepoint{hint}")
    return Spec(f"tracepoint:{category}:{name}", "tracepoint", provider=category, name=name)


def trusting(policy: Asker, options: Mapping[str, Mapping[str, Any]]) -> Asker:
    """The policy for a start with these options by probe, whose targets are trusted."""
    texts = set()
    for chosen in options.values():
        for option in ("targets", "add"):
            value = chosen.get(option) or ()
            for text in [value] if isinstance(value, str) else value:
                # What is no target has no file to be looked up.
                with suppress(ProbeError):
                    texts.add(parse(text).text)
    return replace(policy, trusted=policy.trusted | frozenset(texts))
