# SPDX-License-Identifier: Apache-2.0
"""Where the arguments of a static probe (USDT) are, and where a program finds them.

The compiler notes each as an operand of an assembler instruction: "-4@%eax" is a signed
4-byte value in a register, "8@16(%rsp)" an unsigned 8-byte one in memory, "4@$5" a constant;
"x0" and "[sp, 16]" on arm64. See the "UserSpaceProbeImplementation" page of the SystemTap
wiki, and GNU as on operands of x86-64 and AArch64.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

# Bits of `how`, as in include/operand.h.
SIGNED, RECORD, BASE, INDEX, MEMORY, LOW = (1 << bit for bit in range(4, 10))
_BASE_AT, _INDEX_AT, _SCALE_AT = 16, 32, 48
_WORD = (1 << 64) - 1

MOST_TEXT, MOST_ARGUMENTS = 1024, 16
"""Bytes of a note about arguments, and how many: SystemTap's macros have 12 at most."""

Locate = Callable[[str], int | None]
"""The distance in bytes from the probe to a symbol of its file, None for an unknown one."""


class Operand(NamedTuple):
    """Where a value is: `how` is its size in bytes and bits, `at` an offset or a constant."""

    how: int
    at: int


class Argument(NamedTuple):
    """One argument of a static probe: its size in bytes, and the operand that has it.

    `operand` is None for one that no program can read, `text` how the compiler wrote it.
    """

    size: int
    signed: bool
    text: str
    operand: Operand | None

    def describe(self) -> str:
        """Its type, such as "i32"; pointers are u64 as well."""
        kind = "f" if "f@" in self.text else "i" if self.signed else "u"
        return f"{kind}{8 * self.size}"


# Offsets in struct pt_regs, include/linux/ptrace.h.
_X86_ORDER = "r15,r14,r13,r12,bp,bx,r11,r10,r9,r8,ax,cx,dx,si,di,orig,ip,cs,flags,sp,ss"
_X86_OFFSETS = {name: 8 * at for at, name in enumerate(_X86_ORDER.split(","))}


def _x86_names() -> Iterator[tuple[str, int]]:
    """Every name of a register or of its lower part: rax, eax, ax and al; r8, r8d, r8w, r8b."""
    for name, offset in _X86_OFFSETS.items():
        if name[1:].isdigit():
            forms = [name, f"{name}d", f"{name}w", f"{name}b"]
        else:
            low = name[0] if name.endswith("x") else name
            forms = [f"r{name}", f"e{name}", name, f"{low}l"]
        yield from ((form, offset) for form in forms)


_REGISTERS: dict[str, dict[str, int]] = {
    "x86_64": dict(_x86_names()),
    "arm64": {
        **{f"{kind}{n}": 8 * n for n in range(31) for kind in "xw"},
        "fp": 8 * 29,
        "lr": 8 * 30,
        "sp": 8 * 31,
    },
}
"""Register names -> offset in struct pt_regs, by architecture."""

_ARGUMENT = re.compile(r"(?:(-?)([1248])(f?)@)?(.+)", re.DOTALL)
_X86_MEMORY = re.compile(
    r"(?P<at>[-+\w.$@]*?)\((?:%(?P<base>\w+))?(?:,\s*%(?P<index>\w+)(?:,\s*(?P<scale>[1248]))?)?\)"
)
_ARM_MEMORY = re.compile(
    r"\[(?P<base>\w+)(?:,\s*#?(?P<at>-?(?:0x[0-9a-fA-F]+|\d+))"
    r"|,\s*(?P<index>[xw]\d+)(?:,\s*lsl\s*#?(?P<shift>[0-3]))?)?\]"
)
_SYMBOL = re.compile(r"([A-Za-z_.$][\w.$@]*)?([-+]?(?:0x[0-9a-fA-F]+|\d+))?")
# GCC puts a blank behind the comma of "[sp, 16]", which does not end an argument.
_SPLIT = re.compile(r"\s+(?=(?:-?[1248]f?@))")


def arguments(text: str, arch: str, locate: Locate = lambda name: None) -> list[Argument]:
    """The arguments that a note describes, in their order."""
    # Long runs of blanks would take time by the square of their length below.
    parts = text[:MOST_TEXT].split()
    words = _SPLIT.split(" ".join(parts)) if "@" in text else parts
    return [_argument(word, arch, locate) for word in words[:MOST_ARGUMENTS] if word]


def _argument(word: str, arch: str, locate: Locate) -> Argument:
    found = _ARGUMENT.fullmatch(word)
    assert found is not None
    minus, digits, floating, place = found.groups()
    size, signed = int(digits or 8), bool(minus)
    parse = _x86 if arch == "x86_64" else _arm
    operand = None if floating else parse(place.strip(), locate)
    if operand is not None:
        operand = Operand(operand.how | size | SIGNED * signed, operand.at & _WORD)
    return Argument(size, signed, word, operand)


def _constant(text: str) -> int | None:
    found = re.fullmatch(r"[-+]?(?:0x[0-9a-fA-F]+|\d+)", text, re.ASCII)
    return int(text, 0 if "x" in text else 10) if found else None


def _x86(place: str, locate: Locate) -> Operand | None:
    registers = _REGISTERS["x86_64"]
    if place.startswith("$"):
        value = _constant(place[1:])
        return None if value is None else Operand(0, value)
    if place.startswith("%"):
        offset = registers.get(place[1:])
        return None if offset is None else Operand(BASE | offset << _BASE_AT, 0)
    found = _X86_MEMORY.fullmatch(place)
    if found is None:
        return None
    base, index = found["base"], found["index"]
    at = _displacement(found["at"], locate if base == "rip" else lambda name: None)
    if at is None or (base is None and index is None):
        return None
    how = MEMORY
    for name, bit, shift in ((base, BASE, _BASE_AT), (index, INDEX, _INDEX_AT)):
        if name is not None:
            if name not in registers:
                return None
            how |= bit | registers[name] << shift
    scale = int(found["scale"] or 1).bit_length() - 1
    return Operand(how | scale << _SCALE_AT, at)


def _displacement(text: str, locate: Locate) -> int | None:
    """ "16", "counter" or "counter+4" in bytes; None for a symbol that nobody knows."""
    found = _SYMBOL.fullmatch(text)
    if found is None:
        return None
    name, number = found.groups()
    value = _constant(number) if number else 0
    start = locate(name) if name else 0
    return None if value is None or start is None else start + value


def _arm(place: str, locate: Locate) -> Operand | None:
    registers = _REGISTERS["arm64"]
    if place in registers:
        return Operand(BASE | registers[place] << _BASE_AT, 0)
    value = _constant(place.removeprefix("#"))
    if value is not None:
        return Operand(0, value)
    found = _ARM_MEMORY.fullmatch(place)
    if found is None or found["base"] not in registers:
        return None
    how, index = MEMORY | BASE | registers[found["base"]] << _BASE_AT, found["index"]
    if index is not None:
        # A 32-bit index needs an extension that the note would name otherwise.
        if not index.startswith("x") or index not in registers:
            return None
        how |= INDEX | registers[index] << _INDEX_AT | int(found["shift"] or 0) << _SCALE_AT
    at = _constant(found["at"]) if found["at"] else 0
    return None if at is None else Operand(how, at)
