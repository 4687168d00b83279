"""The binary form of a plan, which the launcher reads without parsing text or allocating memory.

All integers are little-endian. Header: magic (8 bytes), total size (u32), number of the parent's steps
(u32), of the child's (u32), a reserved zero (u32), clone flags (u64), then one string, ``into_cgroup``.
A step: op (u16), number of tolerated errnos (u16), number of strings (u32), six u64 numbers, the errnos
(u32 each), then the strings. A string: length (u32), bytes, one NUL that the length does not count.
Records and strings are padded with zeros to a multiple of 8 bytes (errnos: as one group).
"""

from __future__ import annotations

import struct
from functools import lru_cache

from runtime.errors import UsageError
from runtime.plan.steps import AddEntropy, Affinity, DeviceFilter, Netlink, Plan, SeccompFilter, SetUser, Step

MAGIC = b"TBPLAN\x02\n"
_HEADER = struct.Struct("<8sIIIIQ")
_STEP = struct.Struct("<HHIQQQQQQ")
_LENGTH = struct.Struct("<I")
RAW = (Netlink, SetUser, SeccompFilter, DeviceFilter, Affinity, AddEntropy)  # their strings are bytes, not C strings


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def encode_string(value: bytes) -> bytes:
    """A string as plans have them."""
    return _padded(_LENGTH.pack(len(value)) + value + b"\0")


@lru_cache(maxsize=4096)
def _step(step: Step) -> bytes:
    numbers = (*step.numbers(), 0, 0, 0, 0, 0, 0)[:6]
    strings = step.strings()
    if not isinstance(step, RAW):
        for value in strings:
            if b"\0" in value:
                raise UsageError(f"plan step {type(step).__name__}: {value!r} holds a NUL byte")
    errnos = b"".join(errno.to_bytes(4, "little") for errno in step.tolerate)
    head = _STEP.pack(step.op, len(step.tolerate), len(strings), *numbers)
    return head + _padded(errnos) + b"".join(encode_string(value) for value in strings)


def encode(plan: Plan) -> bytes:
    """The plan as bytes; most steps are the same from start to start and are remembered.

    Raises UsageError when a string that becomes a C string holds a NUL byte.
    """
    body = encode_string(plan.into_cgroup.encode()) + b"".join(_step(step) for step in plan.steps())
    total = _HEADER.size + len(body)
    header = _HEADER.pack(MAGIC, total, len(plan.parent), len(plan.child), 0, plan.clone_flags)
    return header + body
