"""The binary form of a plan, which the launcher reads without parsing text or allocating memory.

All integers are little-endian. Header: magic (8 bytes), total size (u32), number of the parent's steps
(u32), of the child's (u32), of those beside (u32), clone flags (u64), then one string, ``into_cgroup``.
A step: op (u16), number of tolerated errnos (u16), number of strings (u32), six u64 numbers, the errnos
(u32 each), then the strings. A string: length (u32), bytes, one NUL that the length does not count.
Records and strings are padded with zeros to a multiple of 8 bytes (errnos: as one group).
"""

from __future__ import annotations

import struct
from functools import lru_cache

from runtime.errors import UsageError
from runtime.plan.steps import (
    AddEntropy,
    Affinity,
    DeviceFilter,
    MemoryPolicy,
    Netlink,
    Plan,
    Replace,
    SeccompFilter,
    SetUser,
    Spawn,
    Step,
    WriteDescriptor,
)

MAGIC = b"TBPLAN\x03\n"
_HEADER = struct.Struct("<8sIIIIQ")
_STEP = struct.Struct("<HHIQQQQQQ")
_LENGTH = struct.Struct("<I")
_ENDS = tuple(bytes(8 - (_LENGTH.size + length) % 8) for length in range(8))  # of a string, by its length modulo 8
_NO_NUMBERS = (0, 0, 0, 0, 0, 0)
# Their strings are bytes, not C strings.
RAW = (
    *(AddEntropy, Affinity, DeviceFilter, MemoryPolicy, Netlink, Replace, SeccompFilter, SetUser, Spawn),
    WriteDescriptor,
)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def encode_string(value: bytes) -> bytes:
    """A string as plans have them."""
    length = len(value)
    return _LENGTH.pack(length) + value + _ENDS[length % 8]


@lru_cache(maxsize=4096)
def _step(step: Step) -> bytes:
    """The step as bytes, which are kept: most steps are equal from start to start."""
    numbers = (step.numbers() + _NO_NUMBERS)[:6]
    strings = step.strings()
    if not isinstance(step, RAW):
        for value in strings:
            if b"\0" in value:
                raise UsageError(f"plan step {type(step).__name__}: {value!r} holds a NUL byte")
    head = _STEP.pack(step.op, len(step.tolerate), len(strings), *numbers)
    errnos = _padded(b"".join(errno.to_bytes(4, "little") for errno in step.tolerate)) if step.tolerate else b""
    return head + errnos + b"".join(map(encode_string, strings))


def encode(plan: Plan) -> bytes:
    """The plan as bytes.

    Raises UsageError when a string that becomes a C string holds a NUL byte.
    """
    body = encode_string(plan.into_cgroup.encode()) + b"".join(map(_step, plan.steps()))
    total = _HEADER.size + len(body)
    header = _HEADER.pack(MAGIC, total, len(plan.parent), len(plan.child), len(plan.beside), plan.clone_flags)
    return header + body
