# SPDX-License-Identifier: Apache-2.0
"""Compares `probes.symbols.elf` with pyelftools: time and memory of a search, and damaged files.

    pip install --target /tmp/elftools pyelftools
    PYTHONPATH=.:/tmp/elftools python -m bench.elf_readers [FILE...]

A search is what `probes.symbols.functions` does for a file: all functions with the file offsets of
their code. Each one runs in a process of its own, and peak memory is above that of the imports.
Without a FILE the files are libc, libpython and a made file of 300 MB with 200,000 functions; at
last come hostile ones.
"""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from probes.core.errors import ProbeError
from probes.host.open_file import OpenFile
from probes.symbols import functions as elf_functions
from probes.symbols.elf import Elf

ROUNDS = 5
DAMAGED, CHANGES = 2000, 4
"""Damaged copies of a small program, and how many bytes at most each differs in."""
TABLES = 2048
"""Half of the changes are among so many bytes at the beginning and the end: the headers."""
FUNCTIONS, FILL = 200_000, 280 << 20
ENDLESS = 5_000
"""Functions of a file whose table of names is one text without an end."""
_PT_LOAD, _PF_X, _SHN_UNDEF = "PT_LOAD", 1, "SHN_UNDEF"

Search = Callable[[int, str], int]
"""Takes a descriptor and a path, and returns how many functions the file names."""


def ours(fd: int, path: str) -> int:
    """A search by `probes.symbols.functions`, whose cache is not used."""
    elf_functions._functions_of.clear()
    return len(elf_functions.functions(OpenFile(os.dup(fd), path), "/nonexistent"))


def by_pyelftools(fd: int, path: str) -> int:
    """The same search by pyelftools, with as little work a symbol as its API allows."""
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    found: dict[str, tuple[int, int]] = {}
    with os.fdopen(os.dup(fd), "rb") as stream:
        stream.seek(0)
        elf = ELFFile(stream)
        code = [
            (s["p_vaddr"], s["p_vaddr"] + s["p_filesz"], s["p_offset"])
            for s in elf.iter_segments()
            if s["p_type"] == _PT_LOAD and s["p_flags"] & _PF_X
        ]
        for section in elf.iter_sections():
            if not isinstance(section, SymbolTableSection):
                continue
            for symbol in section.iter_symbols():
                kind, address = symbol["st_info"]["type"], symbol["st_value"]
                if kind not in ("STT_FUNC", "STT_LOOS") or symbol["st_shndx"] == _SHN_UNDEF:
                    continue
                for start, end, offset in code:
                    if start <= address < end:
                        found[symbol.name] = (address - start + offset, symbol["st_size"])
                        break
    return len(found)


READERS: Mapping[str, Search] = {"probes.symbols.elf": ours, "pyelftools": by_pyelftools}


def measure(reader: str, path: str) -> dict[str, Any]:
    """One search in this process, after one of a small file: milliseconds, KiB and functions."""
    search = READERS[reader]
    with open("/bin/true", "rb") as small:
        search(small.fileno(), "/bin/true")
    with open(path, "rb") as file:
        before = _peak()
        start = time.process_time()
        functions = search(file.fileno(), path)
        spent = time.process_time() - start
    return {"ms": spent * 1e3, "kib": _peak() - before, "functions": functions}


def _peak() -> int:
    """The most KiB of memory that this process has had; getrusage(2) has those of its parent."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def damage(reader: str) -> dict[str, Any]:
    """Results of searching damaged files: names of exceptions, and the slowest in milliseconds."""
    search, dice, said = READERS[reader], random.Random(1), Counter[str]()
    whole, slowest = Path("/bin/true").read_bytes(), 0.0
    with tempfile.TemporaryFile() as file:
        for _ in range(DAMAGED):
            data = bytearray(whole)
            for _ in range(dice.randint(1, CHANGES)):
                near = dice.randrange(min(TABLES, len(data)))
                at = dice.choice((near, len(data) - 1 - near, dice.randrange(len(data))))
                data[at] = dice.randrange(256)
            os.pwrite(file.fileno(), data, 0)
            os.ftruncate(file.fileno(), len(data))
            start = time.process_time()
            try:
                search(file.fileno(), "damaged")
                said["read"] += 1
            except ProbeError:
                said["refused"] += 1
            except Exception as error:
                kind = type(error)
                said["refused" if kind.__module__.startswith("elftools") else kind.__name__] += 1
            slowest = max(slowest, time.process_time() - start)
    return {"said": said, "slowest": slowest * 1e3}


def _in_child(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.elf_readers", "--child", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr.strip().splitlines()[-1])
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _made(folder: str, functions: int, fill: int) -> str:
    """A shared library with so many functions and bytes of data."""
    source, path = Path(folder, "made.s"), str(Path(folder, f"{functions} functions"))
    one = ".globl function_number_{0}\n.type function_number_{0},%function\n"
    one += "function_number_{0}:\n nop\n.size function_number_{0},.-function_number_{0}\n"
    text = io.StringIO()
    text.write(".text\n")
    text.writelines(one.format(number) for number in range(functions))
    text.write(f".data\n.fill {fill},1,1\n")
    source.write_text(text.getvalue())
    subprocess.run(["gcc", "-shared", "-nostdlib", "-o", path, str(source)], check=True)
    return path


def _endless(folder: str) -> str:
    """A library whose names have no end, so that each takes as long as the whole table."""
    path = os.path.join(folder, "names without an end")
    os.rename(_made(folder, ENDLESS, 1), path)
    with Elf(path) as elf, open(path, "r+b") as file:
        for section in elf.sections:
            if section.name in (".strtab", ".dynstr"):
                os.pwrite(file.fileno(), b"a" * section.size, section.offset)
    return path


def _libraries() -> list[str]:
    """This process's libc, and libpython where there is a shared one."""
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    libc = [path for path in mapped if os.path.basename(path) == "libc.so.6"]
    folder, name = map(sysconfig.get_config_var, ("LIBDIR", "LDLIBRARY"))
    return [*libc, *map(str, sorted(Path(folder).rglob(name))[:1])]


def main(paths: list[str]) -> None:
    """Print a table of both readers."""
    with tempfile.TemporaryDirectory() as folder:
        files = paths or [*_libraries(), _made(folder, FUNCTIONS, FILL)]
        for path in [*files, _endless(folder)]:
            size = os.stat(path).st_size / 1e6
            for reader in READERS:
                rounds = [_in_child(reader, path) for _ in range(ROUNDS)]
                best = min(rounds, key=lambda one: float(one["ms"]))
                print(
                    f"{os.path.basename(path):30} {size:6.1f} MB  {reader:11}"
                    f"{best['functions']:8} functions {best['ms']:9.1f} ms "
                    f"{best['kib'] / 1024:7.1f} MiB",
                    flush=True,
                )
    for reader in READERS:
        result = _in_child(reader)
        said = ", ".join(f"{name} {count}" for name, count in sorted(result["said"].items()))
        print(f"{DAMAGED} damaged files  {reader:11} {said}; slowest {result['slowest']:.1f} ms")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        call = measure if len(sys.argv) > 3 else damage
        print(json.dumps(call(*sys.argv[2:])))
    else:
        main(sys.argv[1:])
