# SPDX-License-Identifier: Apache-2.0
"""What can be timed on this machine, found by a few letters: the dashboard's finder.

A query is words to look for. "k:vfs" looks among kernel functions for kprobes, and so on
for every kind of target. "/usr/bin/bash:read" or "libc:mal" looks among the functions and
static probes of that file, "pid:123:mal" among those of all files of that process. Reading
tracefs takes privileges, so this runs where the loader does.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from functools import cache, cached_property
from heapq import nsmallest
from operator import itemgetter
from typing import NamedTuple

from probes.core import kernel as machine
from probes.core import syscall_names
from probes.core.errors import ProbeError
from probes.host import file_access
from probes.host.lookup import open_directory
from probes.host.open_file import OpenFile, open_file
from probes.symbols import demangle
from probes.symbols.binaries import cached_libraries, find_binary, is_fragment, mappings, which
from probes.symbols.functions import functions, is_go, readable_names
from probes.symbols.fuzzy import Index, Key
from probes.symbols.kernel_functions import Kernel, Mechanism, this_kernel
from probes.symbols.target_spec import KINDS, PRESETS, Kind, is_name
from probes.symbols.tracepoints import tracepoints
from probes.symbols.usdt import read_probes
from probes.symbols.usdt_operands import arguments

PAIRS = (
    ("start", "done"),
    ("start", "end"),
    ("start", "stop"),
    ("begin", "end"),
    ("entry", "return"),
    ("entry", "exit"),
    ("enter", "exit"),
)
"""Ends of the names of two probes that are the beginning and the end of one thing."""

_RANKS = {"preset": 0, "syscall": 1, "usdt": 2, "file": 3, "tracepoint": 4, "uprobe": 5, "func": 5}
"""Which of equally good matches comes first."""
_DEFAULT_KINDS: frozenset[Kind] = frozenset(
    ("preset", "syscall", "tracepoint", "func", "uprobe", "usdt")
)
_FILE_KINDS: frozenset[Kind] = frozenset(("uprobe", "usdt"))
_REMEMBERED = 64
READ_SECONDS = 5.0
"""Most that reading files for one query may take."""


class Candidate(NamedTuple):
    """One thing that can be traced.

    `spec` is what to add as a target; one that ends with ":" or "/" is the beginning of a
    further query. `mechanism` is how ("fentry", "kprobe", "uprobe", "usdt", "tracepoint",
    "syscall"), or "file" or "directory". `cost` is for the caller to fill in.
    """

    spec: str
    mechanism: str
    note: str = ""
    cost: str | None = None


class _List:
    """Texts that a query is compared with, and how to make an entry of one."""

    def __init__(self, texts: list[str], rank: int, entry: Callable[[int], Candidate]) -> None:
        self._index = Index(texts, rank)
        self._entry = entry

    def search(self, query: str, limit: int) -> list[tuple[Key, Candidate]]:
        found = self._index.search(query, limit)
        return [(key, self._entry(number)) for key, number in found]


def _listed(rows: Iterable[tuple[str, Candidate]], rank: int) -> _List:
    pairs = list(rows)
    return _List([text for text, _ in pairs], rank, lambda number: pairs[number][1])


class Catalog:
    """What a kernel and its files offer, read when it is first asked for and then kept.

    `fentry` and `kprobes` say whether this kernel allows these mechanisms at all (to be
    found by trying them); with neither, its functions are not offered.
    """

    def __init__(
        self, kernel: Kernel | None = None, *, fentry: bool = True, kprobes: bool = True
    ) -> None:
        self.kernel = kernel or this_kernel()
        self._allowed = {"fentry": fentry, "kprobe": kprobes, "func": fentry or kprobes}
        self._lists: dict[tuple[object, ...], _List] = {}

    def search(
        self, query: str, limit: int = 50, kinds: Collection[Kind] | None = None
    ) -> list[Candidate]:
        """The best entries for a query, best first; only those of `kinds` if given.

        Raises ProbeError, one sentence for the user, when a file or process that the query
        names cannot be read.
        """
        with file_access.target("", READ_SECONDS):
            return self._search(query.strip(), limit, kinds)

    def _search(self, query: str, limit: int, kinds: Collection[Kind] | None) -> list[Candidate]:
        wanted: frozenset[Kind] = frozenset(kinds or _DEFAULT_KINDS)
        word, colon, rest = query.partition(":")
        if colon and word in KINDS:
            kind, query = KINDS[word], rest.strip()
            wanted = frozenset([kind]) if not kinds or kind in wanted else frozenset()
        lists = self._in_files(query, wanted) if wanted & _FILE_KINDS else None
        if lists is None:
            lists = [(query, self._list(kind)) for kind in sorted(wanted - _FILE_KINDS)]
            if wanted & _FILE_KINDS:
                rows = _names_of_files(query, programs=wanted <= _FILE_KINDS)
                lists.append((query, _listed(rows, _RANKS["file"])))
        found = [result for words, entries in lists for result in entries.search(words, limit)]
        return [entry for _, entry in nsmallest(limit, found, key=itemgetter(0))]

    def load(self) -> None:
        """Read the lists of the kernel now, so that the first search need not."""
        for kind in _DEFAULT_KINDS - _FILE_KINDS:
            self._list(kind)

    def _list(self, kind: Kind) -> _List:
        known = self._lists.get((kind,))
        if known is None:
            known = self._lists[(kind,)] = self._read_list(kind)
        return known

    def _read_list(self, kind: Kind) -> _List:
        if kind == "preset":
            rows = ((name, Candidate(name, "tracepoint", what)) for name, what in PRESETS.items())
            return _listed(rows, _RANKS[kind])
        if kind == "syscall":
            arch = machine.machine()
            names = syscall_names.table(syscall_names.ALIASES.get(arch, arch)).values()
            note = "a system call, from its start to its end"
            rows = ((name, Candidate(f"syscall:{name}", "syscall", note)) for name in names)
            return _listed(rows, _RANKS[kind])
        if kind == "tracepoint":
            known = tracepoints(self.kernel.where.tracefs)
            return _listed(_tracepoint_rows(known), _RANKS[kind])
        return self._functions(kind)

    def _functions(self, kind: Kind) -> _List:
        """Kernel functions, for "func" with the mechanism that it would take."""
        if not self._allowed[kind]:
            return _listed((), _RANKS["func"])
        kernel, allowed = self.kernel, self._allowed
        only: Mechanism | None = None
        if kind == "kprobe" or not allowed["fentry"]:
            only = "kprobe"
        elif kind == "fentry" or not allowed["kprobe"]:
            only = "fentry"
        names = kernel.traceable(only)

        def entry(number: int) -> Candidate:
            name = names[number]
            module = kernel.functions[name]
            mechanism = only or ("fentry" if module or name in kernel.btf_ids else "kprobe")
            note = f"a function of the module {module}" if module else "a kernel function"
            return Candidate(f"{kind}:{name}", mechanism, note)

        return _List(names, _RANKS["func"], entry)

    def _in_files(self, query: str, wanted: frozenset[Kind]) -> list[tuple[str, _List]] | None:
        """(query, list) of each file that the query names, None if it names none."""
        process = re.match(r"pid:(\d{1,9})(?::|$)", query)
        if process:
            paths = [mapping.path for mapping in mappings(int(process[1]))]
            words = query[process.end() :]
            return [(words, found) for path in paths for found in self._process_file(path, wanted)]
        named = self._named_file(query)
        if named is None:
            return None
        name, file, words = named
        return [(words, found) for found in self._file(name, file, wanted)]

    def _named_file(self, query: str) -> tuple[str, OpenFile, str] | None:
        """(name as typed, file, what is looked for in it) if a query names a file."""
        if "/" in query.partition(":")[0]:
            ends = [found.start() for found in re.finditer(":", query)] + [len(query)]
            for end in ends:
                # What is no file, or not for the person who asks, is the beginning of a path.
                with suppress(ProbeError):
                    return query[:end], open_file(query[:end]), query[end + 1 :]
            return None
        name, colon, words = query.partition(":")
        if not colon or not name or name in self._categories:
            return None
        try:
            path = find_binary(name)
        except ProbeError:
            # It may be the beginning of something else.
            return None
        return name, open_file(path), words

    @cached_property
    def _categories(self) -> frozenset[str]:
        return frozenset(category for category, _ in tracepoints(self.kernel.where.tracefs))

    def _process_file(self, path: str, wanted: frozenset[Kind]) -> list[_List]:
        try:
            return self._file(path, open_file(path), wanted)
        except file_access.TooSlow:
            raise
        except ProbeError:
            # One file that cannot be read must not hide the others of the process.
            return []

    def _file(self, name: str, file: OpenFile, wanted: frozenset[Kind]) -> list[_List]:
        """Static probes and functions of a file; raises ProbeError if it is no ELF file."""
        key = ("file", name, file.path, file.version)
        found = []
        for kind, read in (("usdt", _usdt_rows), ("uprobe", _uprobe_rows)):
            if kind not in wanted:
                continue
            known = self._lists.get((kind, *key))
            if known is None:
                known = self._lists[(kind, *key)] = _listed(read(name, file), _RANKS[kind])
                self._forget()
            found.append(known)
        return found

    def _forget(self) -> None:
        """Keep the lists of the last files only."""
        files = [key for key in self._lists if len(key) > 1]
        for key in files[:-_REMEMBERED]:
            del self._lists[key]


def _tracepoint_rows(known: Collection[tuple[str, str]]) -> Iterator[tuple[str, Candidate]]:
    names = set(known)
    for category, name in sorted(known):
        end = _end_of(category, name, names)
        start = f"tracepoint:{category}:{name}"
        if end:
            spec = f"{start},tracepoint:{category}:{end}"
            note = f"from {name} to {end} on the same thread"
            yield f"{category}:{name} {end}", Candidate(spec, "tracepoint", note)
        yield f"{category}:{name}", Candidate(start, "tracepoint", "a tracepoint, counted")


def _end_of(group: str, name: str, known: Collection[tuple[str, str]]) -> str:
    """The probe that ends what the probe `name` begins, "" if the group has none."""
    ends = (name.removesuffix(a) + b for a, b in PAIRS if name.endswith(a))
    return next((end for end in ends if (group, end) in known), "")


def _usdt_rows(name: str, file: OpenFile) -> Iterator[tuple[str, Candidate]]:
    places: dict[tuple[str, str], list[str]] = {}
    for one in read_probes(file):
        places.setdefault((one.provider, one.name), []).append(one.arguments)
    for (provider, probe), noted in sorted(places.items()):
        end = _end_of(provider, probe, places)
        start = f"usdt:{name}:{provider}:{probe}"
        if end:
            spec = f"{start},usdt:{name}:{provider}:{end}"
            note = f"from {probe} to {end} on the same thread"
            yield f"{provider}:{probe} {end}", Candidate(spec, "usdt", note)
        where = f" in {len(noted)} places" if len(noted) > 1 else ""
        carried = arguments(noted[0], machine.arch() or "")
        listed = ", ".join(f"@arg{at} {arg.describe()}" for at, arg in enumerate(carried))
        note = f"a static probe{where}, counted{'; ' if listed else ''}{listed}"
        yield f"{provider}:{probe}", Candidate(start, "usdt", note)


def _uprobe_rows(name: str, file: OpenFile) -> Iterator[tuple[str, Candidate]]:
    name_of_file = os.path.basename(file.path)
    note = "a Go function" if is_go(file) else f"a function of {name_of_file}"
    known, names = functions(file), readable_names(file)
    brief = {symbol: demangle.bare(whole) for symbol, whole in names.items()}
    times = Counter(one for symbol in names for one in {brief[symbol], names[symbol]})
    for symbol, function in known.items():
        # What the grammar of targets does not take cannot be offered.
        if function.ifunc or is_fragment(symbol) or not is_name(symbol):
            continue
        choice = [brief[symbol], names[symbol]] if symbol in names else []
        unique = [one for one in choice if one not in known and times[one] == 1 and is_name(one)]
        chosen = (unique or [symbol])[0]
        # A query finds it by either name.
        text = " ".join([*choice[1:], symbol])
        yield text, Candidate(f"uprobe:{name}:{chosen}", "uprobe", names.get(symbol, note))


def _names_of_files(query: str, programs: bool) -> list[tuple[str, Candidate]]:
    """Files and directories whose names begin as a query does, or that it may mean.

    Only those that the person who asks could list. Without `programs`, a name without a slash
    is only looked for as a whole, or as a library.
    """
    with file_access.rights():
        return list(_listed_names(query, programs))


def _listed_names(query: str, programs: bool) -> Iterator[tuple[str, Candidate]]:
    if "/" in query:
        yield from _names_in_directory(*query.rsplit("/", 1))
        return
    if programs:
        yield from _programs(query)
    elif re.fullmatch(r"[\w.+-]+", query) and (program := which(query)):
        yield query, Candidate(query + ":", "file", program)
    if programs or query.startswith("lib"):
        yield from _libraries(query)


def _names_in_directory(directory: str, base: str) -> Iterator[tuple[str, Candidate]]:
    try:
        fd = open_directory(directory + "/")
    except (OSError, ValueError):
        return
    try:
        with os.scandir(fd) as entries:
            found = [entry for entry in entries if entry.name.startswith(base)]
        for entry in sorted(found, key=lambda entry: entry.name):
            path = f"{directory}/{entry.name}"
            if not path.isprintable():
                continue
            if entry.is_dir():
                yield path, Candidate(path + "/", "directory")
            elif _may_run(entry):
                yield path, Candidate(path + ":", "file")
    except OSError:
        return
    finally:
        os.close(fd)


def _programs(query: str) -> Iterator[tuple[str, Candidate]]:
    """Programs on PATH whose names begin as a query does."""
    seen = set()
    for directory in os.get_exec_path():
        try:
            found = [entry for entry in os.scandir(directory) if entry.name.startswith(query)]
        except OSError:
            continue
        for entry in found:
            if entry.name not in seen and entry.path.isprintable() and _may_run(entry):
                seen.add(entry.name)
                yield entry.name, Candidate(entry.name + ":", "file", entry.path)


def _libraries(query: str) -> Iterator[tuple[str, Candidate]]:
    """Libraries that the dynamic linker knows and whose names contain a query, each once."""
    seen = set()
    # The longest names first: those have the version that programs use.
    for base, path in sorted(cached_libraries(), key=lambda pair: -len(pair[0])):
        if query.lower() in base.lower() and path.isprintable():
            file = os.path.realpath(path)
            if file not in seen:
                seen.add(file)
                yield base, Candidate(base + ":", "file", path)


def _may_run(entry: os.DirEntry[str]) -> bool:
    """Whether a file's code may be run: it is executable, or a shared library."""
    try:
        return entry.is_file() and (".so" in entry.name or bool(entry.stat().st_mode & 0o111))
    except OSError:
        return False


@cache
def _catalog(fentry: bool, kprobes: bool) -> Catalog:
    return Catalog(fentry=fentry, kprobes=kprobes)


def search(
    query: str,
    limit: int = 50,
    kinds: Collection[Kind] | None = None,
    *,
    fentry: bool = True,
    kprobes: bool = True,
) -> list[Candidate]:
    """`Catalog.search` of the running kernel, whose lists are read at the first call only."""
    return _catalog(fentry, kprobes).search(query, limit, kinds)
