# SPDX-License-Identifier: Apache-2.0
"""Readable names of C++ and Rust functions: how they are read, shortened and found again."""

from __future__ import annotations

import os
import resource
from typing import Any

import pytest

from probes.core.errors import ProbeError
from probes.host import file_access, unprivileged
from probes.symbols import demangle, target_spec

PUSH = "_ZN4shop4CartIiE9push_itemEi"
NAMES = {
    PUSH: ("shop::Cart<int>::push_item(int)", "shop::Cart<int>::push_item"),
    "_ZN4shop4CartIiElsEi": ("shop::Cart<int>::operator<<(int)", "shop::Cart<int>::operator<<"),
    "_ZN1AclEi": ("A::operator()(int)", "A::operator()"),
    "_ZNK1AptEv": ("A::operator->() const", "A::operator->"),
    "_ZN1AcvT_IiEEv": ("A::operator int<int>()", "A::operator int<int>"),
    "_ZN1AnwEm": ("A::operator new(unsigned long)", "A::operator new"),
    "_ZN12_GLOBAL__N_13fooEi": ("(anonymous namespace)::foo(int)", "(anonymous namespace)::foo"),
    "_Z3fooIiET_S0_": ("int foo<int>(int)", "foo<int>"),
    "_ZThn16_N1A1fEv": ("non-virtual thunk to A::f()", "non-virtual thunk to A::f()"),
    "_ZN1A1fB5cxx11Ev": ("A::f[abi:cxx11]()", "A::f[abi:cxx11]"),
    "_Z3fooi.constprop.0": ("foo(int) (.constprop.0)", "foo"),
    # Rust: the older symbols, with escapes and a hash, and version 0.
    "_ZN3app3run17h0123456789abcdefE": ("app::run", "app::run"),
    "_ZN40_$LT$app..Cart$u20$as$u20$app..Price$GT$5price17h0123456789abcdefE": (
        "<app::Cart as app::Price>::price",
        "<app::Cart as app::Price>::price",
    ),
    "_RNvC6_123foo3bar": ("123foo::bar", "123foo::bar"),
    "_RNvMNtCsjhQTAB2hq13_3app5storeINtB2_4CartmE9push_itemB4_": (
        "<app::store::Cart<u32>>::push_item",
        "<app::store::Cart<u32>>::push_item",
    ),
}


def test_names_are_read_whole_and_without_their_arguments() -> None:
    whole = demangle.readable(NAMES)
    assert {s: (whole.get(s), demangle.bare(whole.get(s, ""))) for s in NAMES} == NAMES


def test_what_is_no_name_stays() -> None:
    odd = ["malloc", "_Z", "_ZN99shortE", "_R", "_Zé", "_Z" + "9" * 3000, ""]
    assert demangle.readable(odd) == {}


def test_names_that_grow_are_left_out() -> None:
    """Each pointer to a function of the one before twice is twice as long."""
    grows = "_Z1f1A" + "".join(f"PF{_seq(n)}{_seq(n)}E" for n in range(-1, 59, 2))
    found = demangle.readable([grows, PUSH])
    assert found == {PUSH: NAMES[PUSH][0]}


def _seq(number: int) -> str:
    """A substitution as symbols have it: S_, S0_ to S9_, SA_ and so on."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    if number < 0:
        return "S_"
    return f"S{digits[number]}_" if number < 36 else f"S1{digits[number - 36]}_"


def test_a_demangler_that_dies_loses_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = [f"_Z{len(name)}{name}v" for name in (f"f{n}" for n in range(1000))]
    bad = symbols[300]

    def name(library: Any, symbol: str) -> str:
        if symbol == bad:
            os._exit(1)
        return str(library.demangle(symbol))

    monkeypatch.setattr(demangle, "_name", name)
    found = demangle.readable(symbols)
    assert [symbol for symbol in symbols if symbol not in found] == [bad]
    assert found[symbols[999]] == "f999()"


def _doubling(number: int) -> str:
    """A symbol whose name takes gigabytes: each pair is of the one before, twice."""
    pairs = "".join(f"S_IS{_digit(n)}_S{_digit(n)}_E" for n in range(24))
    return f"_Z8f{number:07d}St4pairIiiE{pairs}"


def _digit(number: int) -> str:
    return "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[number]


def test_a_file_of_names_that_double_costs_few_children(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[unprivileged.Bounds] = []
    real = unprivileged.run

    def run(what: str, library: str, work: Any, most: int, bounds: unprivileged.Bounds) -> bytes:
        asked.append(bounds)
        return real(what, library, work, most, bounds)

    monkeypatch.setattr(unprivileged, "run", run)
    assert demangle.readable([_doubling(n) for n in range(40)]) == {}
    assert 1 <= len(asked) <= 3
    assert max(bounds.memory for bounds in asked) <= 64 << 20
    assert sum(bounds.seconds for bounds in asked) <= 6


def test_no_child_is_started_when_the_target_has_had_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(unprivileged, "run")
    with file_access.target("", -1.0), pytest.raises(file_access.TooSlow):
        demangle.readable([PUSH])


def test_the_child_keeps_no_descriptor_whatever_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of 1,048,580 is 4 in twenty bits."""
    high = os.dup2(2, 900, inheritable=False)
    limits = resource.getrlimit

    def limit(which: int) -> tuple[int, int]:
        return (1024, 1 << 20 | 4) if which == resource.RLIMIT_NOFILE else limits(which)

    def work(_: Any, write: unprivileged.Write) -> None:
        write(str(os.path.exists(f"/proc/self/fd/{high}")).encode())

    monkeypatch.setattr(resource, "getrlimit", limit)
    try:
        assert unprivileged.run("a test", "json", work, 100) == b"False"
    finally:
        os.close(high)


def test_the_child_has_no_privileges_and_is_bounded() -> None:
    def work(_: Any, write: unprivileged.Write) -> None:
        write(f"{os.getuid()} {sorted(map(int, os.listdir('/proc/self/fd')))[:3]}".encode())

    answer = unprivileged.run("a test", "json", work, 1000)
    uid = os.getuid() or 65534
    assert answer == f"{uid} [0, 1, 2]".encode()
    with pytest.raises(ProbeError, match="a test takes longer than"):
        unprivileged.run("a test", "json", lambda _, write: write(b"x" * 2000), 1000)
    assert unprivileged.run("a test", "json", lambda _, write: os.abort(), 1000) == b""
    assert unprivileged.run("a test", "no_such_package", lambda _, write: write(b"x"), 9) == b""


def test_symbols_are_found_by_any_name() -> None:
    names = {**demangle.readable([PUSH]), "_Z3runi": "run(int)", "_Z3runv": "run()"}
    for wanted in ("shop::Cart<int>::push_item", "shop::Cart<int>::push_item( int )"):
        assert demangle.meant(wanted, names) == [PUSH]
    assert demangle.meant("run", names) == ["_Z3runi", "_Z3runv"]
    assert demangle.meant("run(int)", names) == ["_Z3runi"]
    assert demangle.meant("push_item", names) == []
    assert demangle.ending("push_item", names) == [NAMES[PUSH][0]]


@pytest.mark.parametrize(
    ("path", "symbol"),
    [
        ("/bin/x", "shop::Cart<int>::push_item(int)"),
        ("/a:b/x", "shop::operator=="),
        ("x", "std::f[abi:cxx11]()"),
        ("x", "11_mangled::main"),
        ("x", "<a::B<u32> as a::C>::price"),
        ("x", "shop::Cart<*>::push*"),
    ],
)
def test_targets_take_readable_names(path: str, symbol: str) -> None:
    spec = target_spec.parse(f"uprobe:{path}:{symbol}")
    assert (spec.path, spec.symbol, spec.offset) == (path, symbol, None)
    assert target_spec.parse(spec.text) == spec
    assert target_spec.is_name(symbol)
