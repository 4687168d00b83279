"""The shortened filter answers as libseccomp's own does: every number, every comparison's two sides."""

from __future__ import annotations

import errno
import itertools
import struct
from collections.abc import Iterator

import pytest

from runtime.config.default import DEFAULT_CAPABILITIES
from runtime.config.seccomp import Seccomp, SyscallArgument, SyscallRule
from runtime.seccomp import compile as compiling
from runtime.seccomp.default import default_profile
from runtime.seccomp.ranges import Instruction, decode, shortened

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
X32_BIT = 0x40000000
ENOTTY = "SCMP_ACT_ERRNO", errno.ENOTTY
HIGH = 0xFFFFFFFF00000000


def forbid(name: str, *args: SyscallArgument) -> SyscallRule:
    return SyscallRule((name,), *ENOTTY, args)


# Everything that a rule can say: each operator with a constant above 32 bits, several arguments, several rules for a
# call, neighbours with and without arguments, more than one architecture.
COMPARED = tuple(
    forbid("mmap", SyscallArgument(index, HIGH | 40, f"SCMP_CMP_{op}", 32))
    for index, op in enumerate(("NE", "LT", "LE", "EQ", "GE", "MASKED_EQ"))
)
RUN = tuple(forbid(name) for name in "read write close stat fstat lstat poll lseek mprotect munmap brk ioctl".split())
PAIR = SyscallArgument(0, 3, "SCMP_CMP_GT"), SyscallArgument(2, 7, "SCMP_CMP_EQ")
CONFIGS = {
    "default": default_profile(DEFAULT_CAPABILITIES),
    "default for an administrator": default_profile((*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN")),
    "default without capabilities": default_profile(()),
    "comparisons": Seccomp("SCMP_ACT_ALLOW", syscalls=(*COMPARED, *RUN, forbid("socket", *PAIR))),
    "architectures": Seccomp(
        "SCMP_ACT_KILL_PROCESS",
        architectures=("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
        syscalls=(SyscallRule(("read", "write", "open", "close"), "SCMP_ACT_ALLOW"), forbid("getpid"), *COMPARED),
    ),
}


def answer(program: list[Instruction], words: tuple[int, ...]) -> int:
    """What a program returns for a struct seccomp_data of 32-bit words: number, architecture, address (two), arguments
    (two each, low half first). Raises IndexError when it looks at a word that is not given."""
    accumulator = pc = 0
    while True:
        code, true, false, k = program[pc]
        pc += 1
        if code == 0x06:
            return k
        if code == 0x20:
            accumulator = words[k // 4]
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            pc += k
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}
            pc += true if holds[code] else false


def plain_and_asked(program: list[Instruction]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Every number that Linux has or may get, x32's as well, and both sides of every constant of the program, under
    three architectures: those that it answers by themselves, and those for which it looks at arguments."""
    sides = {(one.k + by) & 0xFFFFFFFF for one in program for by in (-1, 0, 1)}
    numbers = sides | {number + bit for number in range(2048) for bit in (0, X32_BIT)}
    plain: list[tuple[int, ...]] = []
    asked: list[tuple[int, ...]] = []
    for call in itertools.product(sorted(numbers), (X86_64, I386, AARCH64), (0,), (0,)):
        try:
            answer(program, call)
            plain.append(call)
        except IndexError:
            asked.append(call)
    return plain, asked


def arguments(config: Seccomp) -> Iterator[tuple[int, ...]]:
    """Every two arguments at both sides of all that the rules compare with, in all 64 bits and in each half."""
    found = {0, 1, HIGH, HIGH | 0xFFFFFFFF, 0xFFFFFFFF}
    for argument in (argument for rule in config.syscalls for argument in rule.args):
        for value in (argument.value, argument.value_two):
            found |= {(value + by) % (1 << 64) for by in (-1, 0, 1)} | {value & 0xFFFFFFFF, value & HIGH, value ^ HIGH}
    for places in itertools.combinations(range(6), 2):
        for values in itertools.product(sorted(found), repeat=2):
            words = [0] * 12
            for place, value in zip(places, values, strict=True):
                words[2 * place : 2 * place + 2] = value & 0xFFFFFFFF, value >> 32
            yield tuple(words)


@pytest.mark.parametrize("name", CONFIGS)
def test_it_answers_every_call_as_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "shortened", lambda program: program)
    program = compiling.compiled(CONFIGS[name]).program
    old, new = decode(program), decode(shortened(program))
    assert len(new) < len(old)
    plain, asked = plain_and_asked(old)
    assert len(plain) > 12_000 and asked
    for call in plain:  # without arguments: the new one may not look at them either
        assert answer(old, call) == answer(new, call), call
    for words in arguments(CONFIGS[name]):
        for call in asked:
            assert answer(old, call + words) == answer(new, call + words), (call, words)


def test_the_default_filter_is_a_quarter_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    new = compiling.compiled(CONFIGS["default"]).program
    monkeypatch.setattr(compiling, "shortened", lambda program: program)
    assert len(new) < len(compiling.compiled(CONFIGS["default"]).program) / 4


def test_what_does_not_begin_like_libseccomp_s_stays_as_it_is() -> None:
    allow = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    for program in (allow, struct.pack("=HBBI", 0x20, 0, 0, 0) + 3 * allow):
        assert shortened(program) == program
