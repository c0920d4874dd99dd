# SPDX-License-Identifier: Apache-2.0
"""What a function's instructions say of how it is left: returns, and jumps that may lead out.

`facts` runs in the child of `probes.symbols.instruction_boundaries`, which has no privileges; it is
given code and answers with numbers.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from probes.core.errors import ProbeError
from probes.symbols import instruction_boundaries

RETURN, JUMP, BRANCH, SLOT, TABLE, INDIRECT, BROKEN, PROLOGUE, END, UNREACHED = range(1, 11)
"""What one fact is: a return; a jump out, or one under a condition; a jump to where a fixed word
of memory says, to where an entry of the table at `target` says, or to anywhere; code that
contradicts itself; an early branch of the first code; where decoding ended, and whether code goes
on there; where one of the first four is that the function's start does not lead to, so that it may
be data."""
NEVER = 1
"""`target` of END: nothing runs on behind the last instruction."""
_FEW = 8
"""Instructions before a jump in which the reading of its table stands, and in a prologue."""
_LOCK = 0xF0
_CALLS = ("call", "bl", "blr")
_JUMPS = ("jmp", "br", "braa", "brab", "braaz", "brabz")
_WORDS = 5


class Region(NamedTuple):
    """Code that belongs to one function; `function` tells which one."""

    function: int
    address: int
    code: bytes


class Fact(NamedTuple):
    """What one instruction says; `region` is its number, `at` its offset there in bytes."""

    kind: int
    region: int
    at: int
    target: int


def facts(regions: Sequence[Region], arch: str | None) -> list[Fact]:
    """The facts of some code; raises ProbeError when they cannot be had."""
    size = sum(len(region.code) for region in regions)
    # Each byte can be two facts: a return that nothing leads to.
    most = _WORDS * (2 * size + len(regions) + 1)
    numbers = instruction_boundaries.in_child(
        lambda capstone: _answer(capstone, regions, arch), most
    )
    if not numbers or len(numbers) % _WORDS != 1 or numbers[-1] != len(numbers) // _WORDS:
        why = "the disassembler ended without an answer"
        raise ProbeError(why, "pip install capstone")
    found = []
    for kind, region, at, low, high in struct.iter_unpack(f"={_WORDS}I", numbers[:-1].tobytes()):
        # The child has decoded code of anybody's choice: it may answer anything.
        if (
            not RETURN <= kind <= UNREACHED
            or region >= len(regions)
            or at > len(regions[region].code)
        ):
            raise ProbeError("the disassembler's answer is wrong", "report it")
        found.append(Fact(kind, region, at, high << 32 | low))
    return found


def _answer(capstone: Any, regions: Sequence[Region], arch: str | None) -> bytes:
    numbers = array("I")
    for fact in decode(capstone, regions, arch):
        target = fact.target & (1 << 64) - 1
        numbers.extend((fact.kind, fact.region, fact.at, target & 0xFFFFFFFF, target >> 32))
    numbers.append(len(numbers) // _WORDS)
    return numbers.tobytes()


def decode(capstone: Any, regions: Sequence[Region], arch: str | None) -> list[Fact]:
    """As `facts`, in this process."""
    engine = instruction_boundaries.engine_of(capstone, arch)
    read = _X86() if arch == "x86_64" else _Arm()
    found: list[Fact] = []
    starts: dict[int, dict[int, _Step]] = {}
    for number, region in enumerate(regions):
        known = starts.setdefault(region.function, {})
        found += _one(engine, read, number, region, known)
    reached = {function: _reached(steps) for function, steps in starts.items()}
    found += [
        Fact(UNREACHED, fact.region, fact.at, 0)
        for fact in found
        if fact.kind in (RETURN, JUMP, BRANCH, SLOT)
        and regions[fact.region].address + fact.at not in reached[regions[fact.region].function]
    ]
    return [fact for fact in found if not _is_inside(fact, regions, starts, found)]


class _Step(NamedTuple):
    """Where an instruction leads to: behind it, or not, and to a place that it names, or -1.

    `switches` tells that it jumps to places that it does not name, as by a table.
    """

    behind: int
    goes_on: bool
    target: int
    switches: bool = False


def _reached(steps: Mapping[int, _Step]) -> set[int]:
    """The instructions of a function that its first one leads to, along direct jumps.

    All of them where it switches: the entries of its table are not known.
    """
    if any(step.switches for step in steps.values()):
        return set(steps)
    found: set[int] = set()
    waiting = [next(iter(steps))] if steps else []
    while waiting:
        at = waiting.pop()
        # Behind a lock prefix alone, as in `_is_inside`.
        step = steps.get(at) or steps.get(at - 1)
        if step is None or at in found:
            continue
        found.add(at)
        waiting += [step.target] if step.target >= 0 else []
        waiting += [step.behind] if step.goes_on else []
    return found


def _one(
    engine: Any, read: _X86 | _Arm, number: int, region: Region, starts: dict[int, _Step]
) -> list[Fact]:
    """Facts of one region, with all of its jumps; adds where instructions begin to `starts`."""
    found: list[Fact] = []
    before: deque[tuple[str, str]] = deque(maxlen=_FEW)
    at = end = count = 0
    ends = False
    for address, size, mnemonic, operands in engine.disasm_lite(region.code, region.address):
        at = address - region.address
        end, count = at + size, count + 1
        kind, target = read.kind(mnemonic, operands, before)
        starts[address] = _step(read, region, address + size, mnemonic, operands, (kind, target))
        if kind == SLOT and target:
            target += address + size
        if kind:
            found.append(Fact(kind, number, at, target))
        if kind == BRANCH and count <= _FEW:
            found.append(Fact(PROLOGUE, number, end, target))
        # What fills up behind the last instruction is not run.
        ends = ends if mnemonic == "nop" or operands == "ax, ax" else read.ends(mnemonic, kind)
        before.append((mnemonic, operands))
    found.append(Fact(END, number, end, NEVER * ends))
    return found


def _step(
    read: _X86 | _Arm,
    region: Region,
    behind: int,
    mnemonic: str,
    operands: str,
    kind: tuple[int, int],
) -> _Step:
    """Where an instruction leads to; as `boundaries` sees it, a call within does not return."""
    if mnemonic.rpartition(" ")[2] in _CALLS:
        called = _number(operands)
        within = called is not None and 0 < called - region.address < len(region.code)
        return _Step(behind, not within, called if within and called is not None else -1)
    target = kind[1] if kind[0] in (JUMP, BRANCH) else -1
    jumps = mnemonic.rpartition(" ")[2] in _JUMPS
    switches = jumps and kind[0] in (0, TABLE, INDIRECT)
    return _Step(behind, not read.ends(mnemonic, kind[0]), target, switches)


def _is_inside(
    fact: Fact, regions: Sequence[Region], starts: Mapping[int, Collection[int]], found: list[Fact]
) -> bool:
    """Whether a jump stays in the function; one into the middle of an instruction is noted."""
    if fact.kind not in (JUMP, BRANCH):
        return False
    own = regions[fact.region]
    for region in regions:
        place = fact.target - region.address
        if region.function != own.function or not 0 <= place < len(region.code):
            continue
        known = starts[own.function]
        # Behind a lock prefix alone: what the C library does where there is one thread.
        locked = fact.target - 1 in known and region.code[place - 1] == _LOCK
        if fact.target not in known and not locked:
            found.append(Fact(BROKEN, fact.region, fact.at, fact.target))
        # The very beginning is told: there an entry is counted.
        return place > 0 or region is not _first(regions, own.function)
    return False


def _first(regions: Sequence[Region], function: int) -> Region:
    return next(region for region in regions if region.function == function)


def _number(text: str) -> int | None:
    text = text.strip().lstrip("#")
    return int(text, 0) if text[:1].isdigit() else None


Before = Collection[tuple[str, str]]


class _X86:
    """Instructions of x86_64, as capstone writes them."""

    _SLOT = re.compile(r"qword ptr \[rip ([+-]) (0x[0-9a-f]+|\d+)\]")
    _TABLE = re.compile(r"qword ptr \[(?:\w+)\*8 \+ (0x[0-9a-f]+)\]")
    _ENTRY = re.compile(r"(\w+), dword ptr \[.*\*4.*\]")
    _ENDS = frozenset({"ud2", "hlt", "int3", "call", "ud1", "ud0"})

    def kind(self, mnemonic: str, operands: str, before: Before) -> tuple[int, int]:
        """What an instruction is, 0 for most, and its target."""
        word = mnemonic.rpartition(" ")[2]
        if word == "ret":
            return RETURN, 0
        if word in ("retf", "retfq", "iret", "iretd", "iretq", "sysret", "sysretq"):
            return INDIRECT, 0
        if word != "jmp" and not word.startswith(("j", "loop", "xbegin")):
            return 0, 0
        target = _number(operands)
        if target is not None:
            return (JUMP if word == "jmp" else BRANCH), target
        return self._indirect(mnemonic, operands, before)

    def _indirect(self, mnemonic: str, operands: str, before: Before) -> tuple[int, int]:
        # What the compiler lets jump without a landing instruction jumps by its own table.
        if mnemonic.startswith("notrack"):
            return 0, 0
        slot, table = self._SLOT.fullmatch(operands), self._TABLE.fullmatch(operands)
        if slot:
            offset = int(slot[2], 0)
            return SLOT, -offset if slot[1] == "-" else offset
        if table:
            return TABLE, int(table[1], 0)
        if operands.startswith("qword ptr [") and operands.endswith("*8]"):
            return TABLE, 0
        return (0, 0) if self._is_relative(operands, before) else (INDIRECT, 0)

    def _is_relative(self, register: str, before: Before) -> bool:
        """Whether a register was made of a table's entry, which is counted from the table."""
        entries = {
            found[1]
            for word, text in before
            if word == "movsxd" and (found := self._ENTRY.fullmatch(text))
        }
        return any(
            word == "add" and parts[0] == register and entries & set(parts)
            for word, text in before
            for parts in [text.split(", ")]
        )

    def ends(self, mnemonic: str, kind: int) -> bool:
        """Whether nothing runs on behind an instruction."""
        word = mnemonic.rpartition(" ")[2]
        return word in self._ENDS or (word == "jmp") or kind in (RETURN, INDIRECT)


class _Arm:
    """Instructions of arm64, as capstone writes them."""

    _ENTRY = re.compile(r"(x\d+), (x\d+), [wx]\d+, [su]xt[bhwx] #2")
    _LOADED = re.compile(r"(x\d+), \[x\d+, [xw]\d+, .*#3\]")
    _ENDS = frozenset({"b", "br", "brk", "udf", "bl", "blr", "hlt"})

    def kind(self, mnemonic: str, operands: str, before: Before) -> tuple[int, int]:
        """What an instruction is, 0 for most, and its target."""
        if mnemonic == "ret":
            return (RETURN, 0) if operands in ("", "x30") else (INDIRECT, 0)
        # Returns that check a signature are no place for a uprobe.
        if mnemonic in ("retaa", "retab"):
            return INDIRECT, 0
        if mnemonic == "b":
            return JUMP, _number(operands) or 0
        if mnemonic.startswith(("b.", "bc.", "cb", "tb")) and mnemonic not in ("tbl", "tbx"):
            target = _number(operands.rpartition(",")[2])
            return (BRANCH, target) if target is not None else (0, 0)
        if mnemonic in ("br", "braa", "brab", "braaz", "brabz", "eret", "eretaa", "eretab"):
            if self._is_relative(operands, before):
                return 0, 0
            loaded = (self._LOADED.fullmatch(text) for word, text in before if word == "ldr")
            return (TABLE if any(m and m[1] == operands for m in loaded) else INDIRECT), 0
        return 0, 0

    def _is_relative(self, register: str, before: Before) -> bool:
        """Whether a register was made of a table's entry, which is counted from the table."""
        made = [found for word, text in before if word == "add"
                if (found := self._ENTRY.fullmatch(text)) and found[1] == register]  # fmt: skip
        places = {text.partition(",")[0] for word, text in before if word == "adr"}
        return any(found[2] in places for found in made)

    def ends(self, mnemonic: str, kind: int) -> bool:
        """Whether nothing runs on behind an instruction."""
        return mnemonic in self._ENDS or kind in (RETURN, INDIRECT, TABLE)
