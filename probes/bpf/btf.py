# SPDX-License-Identifier: Apache-2.0
"""Offsets of kernel structures, from the running kernel's BTF.

It is what CO-RE does, for BCC: `task_struct.mm` becomes -DOFF_task_struct_mm=2400. libbpf
parses (11 ms; in Python it would take half a second), through ctypes and without its
printing. Used in the loader only, which pays for the parsed tables and ends.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_uint32, c_void_p

from probes.core.errors import ProbeError

_LIBRARIES = ("libbpf.so.1", "libbpf.so.0", "libbcc_bpf.so.0", "libbcc.so.0")
_POINTER, _STRUCT, _UNION, _ENUM, _TYPEDEF, _FUNCTION, _PROTOTYPE = 2, 4, 5, 6, 8, 12, 13
_KINDS_THROUGH = (8, 9, 10, 11, 18)  # typedef, volatile, const, restrict, type tag


class _Type(ctypes.Structure):
    _fields_ = (("name", c_uint32), ("info", c_uint32), ("size_or_type", c_uint32))


class _Member(ctypes.Structure):
    _fields_ = (("name", c_uint32), ("type", c_uint32), ("offset", c_uint32))


class _Enumerator(ctypes.Structure):
    _fields_ = (("name", c_uint32), ("value", ctypes.c_int32))


class KernelBTF:
    """The running kernel's types; raises ProbeError where the kernel has none to offer."""

    def __init__(self) -> None:
        self._lib = _library()
        self._btf = self._lib.btf__load_vmlinux_btf()
        if not self._btf or ctypes.c_ssize_t(self._btf).value in range(-4095, 0):
            raise ProbeError(
                "this kernel offers no type information (/sys/kernel/btf/vmlinux)",
                "use a kernel built with CONFIG_DEBUG_INFO_BTF, as all big distributions' are",
            )

    def offset(self, path: str) -> int | None:
        """Byte offset of "structure.member[.member]", None where this kernel has it not."""
        name, *members = path.split(".")
        at = self._lib.btf__find_by_name_kind(self._btf, name.encode(), _STRUCT)
        total = 0
        for member in members:
            found = self._member(at, member) if at > 0 else None
            if found is None:
                return None
            total, at = total + found[0], found[1]
        return total // 8

    def function_id(self, name: str) -> int | None:
        """The type id of a kernel function, which fentry needs; None if there is none.

        A tracepoint's is that of the type "btf_trace_NAME".
        """
        kind = _TYPEDEF if name.startswith("btf_trace_") else _FUNCTION
        found = int(self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind))
        return found if found > 0 else None

    def tracepoint_arguments(self, name: str) -> int | None:
        """How many arguments a tracepoint has for its raw programs; None where it is unknown."""
        at: int | None = self.function_id(f"btf_trace_{name}")
        for kind in (_TYPEDEF, _POINTER):
            if at is None or self._type(at).info >> 24 & 0x1F != kind:
                return None
            at = int(self._type(at).size_or_type)
        head = self._type(at or 0)
        if head.info >> 24 & 0x1F != _PROTOTYPE:
            return None
        # The first one is the kernel's own.
        return int(head.info & 0xFFFF) - 1

    def enumerator(self, enum: str, name: str) -> int | None:
        """The value of one name of an enum, None where this kernel has it not."""
        at = self._lib.btf__find_by_name_kind(self._btf, enum.encode(), _ENUM)
        if at <= 0:
            return None
        head = self._type(at)
        base = ctypes.addressof(head) + ctypes.sizeof(_Type)
        for entry in (_Enumerator * (head.info & 0xFFFF)).from_address(base):
            if self._name(entry.name) == name:
                return int(entry.value)
        return None

    def _type(self, at: int) -> _Type:
        pointer = self._lib.btf__type_by_id(self._btf, at)
        return _Type.from_address(pointer)

    def _name(self, offset: int) -> str:
        text: bytes | None = self._lib.btf__name_by_offset(self._btf, offset)
        return (text or b"").decode()

    def _member(self, at: int, wanted: str) -> tuple[int, int] | None:
        """(bit offset, type) of a member, also inside of anonymous structures and unions."""
        head = self._type(at)
        kind = head.info >> 24 & 0x1F
        if kind in _KINDS_THROUGH:
            return self._member(head.size_or_type, wanted)
        if kind not in (_STRUCT, _UNION):
            return None
        base = ctypes.addressof(head) + ctypes.sizeof(_Type)
        for member in (_Member * (head.info & 0xFFFF)).from_address(base):
            # With the kind flag the upper byte of an offset is a bit field's size.
            offset = member.offset & 0xFFFFFF if head.info >> 31 else member.offset
            name = self._name(member.name)
            if name == wanted:
                return offset, member.type
            if not name:
                inner = self._member(member.type, wanted)
                if inner is not None:
                    return offset + inner[0], inner[1]
        return None


def _library() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            lib = ctypes.CDLL(name)
            lib.btf__load_vmlinux_btf.restype = c_void_p
        except (OSError, AttributeError):
            continue
        lib.btf__find_by_name_kind.argtypes = (c_void_p, c_char_p, c_uint32)
        lib.btf__find_by_name_kind.restype = c_int
        lib.btf__type_by_id.argtypes = (c_void_p, c_uint32)
        lib.btf__type_by_id.restype = c_void_p
        lib.btf__name_by_offset.argtypes = (c_void_p, c_uint32)
        lib.btf__name_by_offset.restype = c_char_p
        lib.libbpf_set_print.argtypes = (c_void_p,)
        lib.libbpf_set_print(None)
        return lib
    raise ProbeError("libbpf is missing", "install the package libbpf1 (libbpf on Fedora, Arch)")
