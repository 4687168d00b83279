"""Encode a plan in the binary form that the launcher reads without parsing text or allocating memory.

All integers are little-endian. The header holds the magic (6 bytes) and the version (2), the total size (u32), the
number of the parent's steps (u32) and of the child's (u32), the clone flags (u32), then one string, ``into_cgroup``.
A step holds the position of its operation in ``OPERATIONS``, from 1 (u16), the number of tolerated errnos (u16), the
number of strings (u32), its numbers (u64 each, as many as the operation has), the errnos (u32 each), then the strings.
A string holds its length (u32), its bytes, and one NUL that the length does not count. Each string, and the errnos as
one group, are padded with zeros to a multiple of 8 bytes. ``steps.arguments`` says which of a step's fields are numbers
and which are strings.
"""

from __future__ import annotations

import struct
from functools import cache, lru_cache
from zlib import crc32

from msgspec import Struct

from runtime.errors import UsageError
from runtime.plan.steps import OPERATIONS, Plan, Step
from runtime.plan.steps.arguments import Layout, layout, text

_HEADER = struct.Struct("<8sIIII")
_LENGTH = struct.Struct("<I")
_ENDS = tuple(bytes(8 - (_LENGTH.size + length) % 8) for length in range(8))  # NUL and padding, by length modulo 8


@cache
def magic() -> bytes:
    """Return the bytes that a plan begins with. They differ between launchers and planners whose operations or
    arguments differ."""
    table: list[str] = []
    for kind in OPERATIONS:
        form = layout(kind)
        table += (kind.__name__, *form.lists)
        for number, value in form.numbers:
            table += (number, str(value.largest))
        for string, words in form.strings:
            table += (string, "raw" if words.raw else "text")
    return b"TBPLAN" + (crc32(" ".join(table).encode()) & 0xFFFF).to_bytes(2, "little")


class _Encoder(Struct, frozen=True):
    code: int
    pack: struct.Struct
    form: Layout


@cache
def _encoder(kind: type[Step]) -> _Encoder:
    form = layout(kind)
    pack = struct.Struct(f"<HHI{len(form.numbers) + len(form.lists)}Q")
    return _Encoder(OPERATIONS.index(kind) + 1, pack, form)


def encode_string(value: bytes) -> bytes:
    """Encode a string as plans hold it."""
    length = len(value)
    return _LENGTH.pack(length) + value + _ENDS[length % 8]


@lru_cache(maxsize=4096)
def _step(step: Step) -> bytes:
    """Encode the step. The result is cached, as most steps are the same from one start to the next."""
    encoder = _encoder(type(step))
    form = encoder.form
    numbers = [n.convert(getattr(step, name)) if n.convert else getattr(step, name) for name, n in form.numbers]
    try:
        strings = [string.convert(getattr(step, name)) for name, string in form.strings]
        for name in form.lists:
            values = getattr(step, name)
            numbers.append(len(values))
            strings += map(text, values)
    except ValueError as error:
        raise UsageError(f"plan step {type(step).__name__}: {error}") from error
    head = encoder.pack.pack(encoder.code, len(step.tolerate), len(strings), *numbers)
    if step.tolerate:
        errnos = b"".join(errno.to_bytes(4, "little") for errno in step.tolerate)
        head += errnos + bytes(-len(errnos) % 8)
    return head + b"".join(map(encode_string, strings))


def encode(plan: Plan) -> bytes:
    """Encode the plan as bytes.
    Raises UsageError when a string that becomes a C string holds a NUL byte.
    """
    body = encode_string(plan.into_cgroup.encode()) + b"".join(map(_step, plan.steps()))
    total = _HEADER.size + len(body)
    header = _HEADER.pack(magic(), total, len(plan.parent), len(plan.child), plan.clone_flags)
    return header + body
