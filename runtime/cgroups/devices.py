"""This module translates device rules into texts for cgroup v1's files and into a BPF program for cgroup v2.

The kernel runs the program for every device that is opened or made (bpf-cgroup, struct bpf_cgroup_dev_ctx of
linux/bpf.h).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

from runtime.config.resources import DeviceRule

# Every container may use these devices, whatever its rules say, and may make any device node (config-linux.md,
# "Default Devices"; runc and crun allow the same).
DEFAULT_RULES = (
    *(DeviceRule(True, kind, None, None, "m") for kind in ("c", "b")),
    *(DeviceRule(True, "c", *numbers) for numbers in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2))),
    DeviceRule(True, "c", 136, None),
)
CONFINED = (DeviceRule(False), *DEFAULT_RULES)

# enum of linux/bpf.h: BPF_DEVCG_DEV_*, BPF_DEVCG_ACC_*
_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
# Operation codes of eBPF instructions (Documentation/bpf/standardization/instruction-set.rst)
_LOAD_WORD, _MOVE, _RETURN = 0x61, 0xB7, 0x95
_COPY, _AND, _SHIFT_RIGHT = 0xBC, 0x54, 0x74  # on 32 bits
_JUMP_EQUAL, _JUMP_UNEQUAL = 0x16, 0x56  # on 32 bits
_CONTEXT, _RESULT, _KIND, _WANTED, _MAJOR, _MINOR, _DENIED = 1, 0, 2, 3, 4, 5, 6  # registers
_INSTRUCTION = struct.Struct("<BBhi")


def _instruction(code: int, target: int, value: int = 0, *, source: int = 0, offset: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, source << 4 | target, offset, value - (1 << 32) if value >> 31 else value)


def _answer(allow: bool) -> list[bytes]:
    return [_instruction(_MOVE, _RESULT, int(allow)), _instruction(_RETURN, 0)]


def _number(value: int | None) -> int | None:
    return None if value == -1 else value


def _access(rule: DeviceRule) -> str:
    return rule.access or "rwm"


def _rule(rule: DeviceRule) -> list[bytes]:
    """Compile one rule. It decides about the requested kinds of access that no later rule has decided about."""
    access = sum(_ACCESS[letter] for letter in set(_access(rule)))
    if rule.allow:
        decided = [
            _instruction(_AND, _WANTED, 7 & ~access),
            _instruction(_JUMP_UNEQUAL, _WANTED, 0, offset=2),
            *_answer(True),
        ]
    else:
        decided = [
            _instruction(_COPY, _DENIED, source=_WANTED),
            _instruction(_AND, _DENIED, access),
            _instruction(_JUMP_EQUAL, _DENIED, 0, offset=2),
            *_answer(False),
        ]
    for register, value in (
        (_MINOR, _number(rule.minor)),
        (_MAJOR, _number(rule.major)),
        (_KIND, _TYPES.get(rule.type)),
    ):
        if value is not None:
            decided.insert(0, _instruction(_JUMP_UNEQUAL, register, value, offset=len(decided)))
    return decided


def _decides_all(rule: DeviceRule) -> bool:
    numbers = (_number(rule.major), _number(rule.minor))
    return rule.type not in _TYPES and numbers == (None, None) and set(_access(rule)) == set(_ACCESS)


def device_program(rules: Sequence[DeviceRule]) -> bytes:
    """Compile the rules into an eBPF program, with 8 bytes per instruction.

    For each kind of access, the last rule that matches decides. Access that no rule matches is allowed, as in a v1
    cgroup that has just been made.
    """
    program = [
        _instruction(_LOAD_WORD, _KIND, source=_CONTEXT),
        _instruction(_COPY, _WANTED, source=_KIND),
        _instruction(_AND, _KIND, 0xFFFF),
        _instruction(_SHIFT_RIGHT, _WANTED, 16),
        _instruction(_LOAD_WORD, _MAJOR, source=_CONTEXT, offset=4),
        _instruction(_LOAD_WORD, _MINOR, source=_CONTEXT, offset=8),
    ]
    for rule in reversed(rules):
        if _decides_all(rule):  # the kernel's verifier rejects unreachable instructions
            return b"".join([*program, *_answer(rule.allow)])
        program += _rule(rule)
    return b"".join([*program, *_answer(True)])


def rule_texts(rule: DeviceRule) -> tuple[str, ...]:
    """Return a rule as cgroup v1's devices.allow and devices.deny take it; they ignore what follows an ``a``."""
    if _decides_all(rule):
        return ("a",)
    numbers = ("*" if _number(number) is None else str(number) for number in (rule.major, rule.minor))
    rest = f"{':'.join(numbers)} {_access(rule)}"
    return tuple(f"{kind} {rest}" for kind in ((rule.type,) if rule.type in _TYPES else _TYPES))


@lru_cache(maxsize=64)
def rule_files(rules: tuple[DeviceRule, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the rules for cgroup v1, as pairs of a file and the texts to write to it, in order."""
    return tuple(
        (f"devices.{'allow' if allow else 'deny'}", tuple(text for rule in group for text in rule_texts(rule)))
        for allow, group in groupby(rules, lambda rule: rule.allow)
    )
