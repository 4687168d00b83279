"""Plans that readers once crashed on, made as the operations are numbered today."""

from __future__ import annotations

import struct

from runtime.plan import steps as s
from runtime.plan.encode import encode

_FIRST_STEP, _STEP_HEADER = 32, 8
_ENDLESS = (1 << 64) - 1
_FORKS = s.Plan((*s.forked(s.Umask(0)), s.Exec(("a",))))


def _with_numbers(plan: s.Plan, first: int, *numbers: int) -> bytes:
    """The plan with other numbers in its first step, from the one at ``first`` on."""
    data = bytearray(encode(plan))
    struct.pack_into(f"<{len(numbers)}Q", data, _FIRST_STEP + _STEP_HEADER + 8 * first, *numbers)
    return bytes(data)


def _with_counts(arguments: int, variables: int) -> bytes:
    """An Exec of one argument that says that it has others: the counts come after two flags."""
    return _with_numbers(s.Plan((s.Exec(("/bin/true",)),)), 2, arguments, variables)


def _cut_off(data: bytes) -> bytes:
    """Without the last string, and with the right size."""
    return data[:8] + struct.pack("<I", len(data) - 8) + data[12:-8]


DAMAGED = {
    "exec-all-arguments": _with_counts(2, _ENDLESS),
    "exec-environment": _with_counts(1, _ENDLESS),
    "exec-more-arguments": _with_counts(_ENDLESS, 2),
    "exec-no-arguments": _with_counts(0, 1),
    "fork-steps": _with_numbers(_FORKS, 0, _ENDLESS),
    "fork-steps-cut-off": _cut_off(encode(_FORKS)),
}
