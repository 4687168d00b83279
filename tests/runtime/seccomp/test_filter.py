"""Filters do in a real process what the configuration says."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from typing import Any

import pytest

from runtime.config.seccomp import Seccomp, SyscallArgument, SyscallRule
from runtime.errors import UsageError
from runtime.seccomp.filter import compile_filter

# Loads the filter at descriptor 0 and makes the system call given as arguments; prints its result.
LOADED = """
import ctypes, os, sys
program = sys.stdin.buffer.read()
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = (("n", ctypes.c_ushort), ("at", ctypes.c_char_p))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.syscall(317, 1, 0, ctypes.byref(Program(len(program) // 8, program))) == 0
result = libc.syscall(*map(int, sys.argv[1:]))
print(result, ctypes.get_errno())
"""
GETPRIORITY, SOCKET = 140, 41  # x86-64


def outcome(config: Seccomp, *call: int) -> tuple[int, int, int]:
    """The exit status of a process under the filter, and what its call returned with which errno."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", LOADED, *map(str, call)],
        input=compile_filter(config).program,
        capture_output=True,
    )
    result, number = (int(word) for word in done.stdout.split() or (b"0", b"0"))
    return done.returncode, result, number


def rules(*found: SyscallRule) -> Seccomp:
    return Seccomp("SCMP_ACT_ALLOW", syscalls=found)


def test_errno_is_returned() -> None:
    config = rules(SyscallRule(("getpriority",), "SCMP_ACT_ERRNO", errno.ENOTTY))
    assert outcome(config, GETPRIORITY, 0, 0) == (0, -1, errno.ENOTTY)
    assert outcome(rules(SyscallRule(("getpriority",), "SCMP_ACT_ERRNO")), GETPRIORITY, 0, 0)[2] == errno.EPERM


def test_killing_kills() -> None:
    config = rules(SyscallRule(("getpriority",), "SCMP_ACT_KILL_PROCESS"))
    assert outcome(config, GETPRIORITY, 0, 0)[0] == -31  # SIGSYS


@pytest.mark.parametrize(
    ("op", "value", "two", "forbidden"),
    [
        ("SCMP_CMP_EQ", 40, 0, True),
        ("SCMP_CMP_NE", 40, 0, False),
        ("SCMP_CMP_GT", 39, 0, True),
        ("SCMP_CMP_LT", 40, 0, False),
        ("SCMP_CMP_GE", 40, 0, True),
        ("SCMP_CMP_LE", 39, 0, False),
        ("SCMP_CMP_MASKED_EQ", 0x28, 0x28, True),
    ],
)
def test_arguments_are_compared(op: str, value: int, two: int, forbidden: bool) -> None:
    config = rules(SyscallRule(("socket",), "SCMP_ACT_ERRNO", errno.ENOTTY, (SyscallArgument(0, value, op, two),)))
    assert (outcome(config, SOCKET, 40, 1, 0)[2] == errno.ENOTTY) is forbidden


def test_unknown_system_calls_are_left_out() -> None:
    assert compile_filter(rules(SyscallRule(("not_a_call",), "SCMP_ACT_ERRNO"))).program


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (Seccomp("SCMP_ACT_MAYBE"), "defaultAction"),
        (Seccomp("SCMP_ACT_NOTIFY"), "defaultAction"),
        (Seccomp("SCMP_ACT_ALLOW", flags=("X",)), "flags"),
        (Seccomp("SCMP_ACT_ALLOW", architectures=("SCMP_ARCH_Z80",)), "architectures"),
        (rules(SyscallRule(("read",), "SCMP_ACT_X")), r"syscalls\[0\].action"),
        (rules(SyscallRule(("read",), "SCMP_ACT_ALLOW", 1)), "returns no errno"),
        (rules(SyscallRule(("read",), "SCMP_ACT_ERRNO", args=(SyscallArgument(0, 0, "SCMP_CMP_ABOUT"),))), "args"),
        (rules(SyscallRule(("bpf",), "SCMP_ACT_NOTIFY")), "listenerPath"),
    ],
)
def test_what_nobody_has_is_named(config: Seccomp, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        compile_filter(config)


def test_a_rule_that_notifies_asks_for_a_listener() -> None:
    config = Seccomp("SCMP_ACT_ALLOW", listener_path="/s", syscalls=(SyscallRule(("bpf",), "SCMP_ACT_NOTIFY"),))
    assert compile_filter(config).notifies
    own = Seccomp("SCMP_ACT_ALLOW", listener_path="/s", syscalls=(SyscallRule(("sendmsg",), "SCMP_ACT_NOTIFY"),))
    with pytest.raises(UsageError, match="sendmsg"):
        compile_filter(own)


def many(count: int, **rule: Any) -> Seccomp:
    rules = [SyscallRule(**{"names": ("mkdir",), "action": "SCMP_ACT_ERRNO", **rule}) for _ in range(count)]
    return Seccomp("SCMP_ACT_ALLOW", syscalls=tuple(rules))


def test_what_is_said_often_costs_little() -> None:
    began = time.monotonic()
    once = compile_filter(many(1))
    assert compile_filter(many(20_000)) == once
    assert compile_filter(many(1, names=("mkdir", "mkdir") * 50_000)) == once
    assert time.monotonic() - began < 5


def test_more_rules_than_the_kernel_takes_are_refused_at_once() -> None:
    rules = [
        SyscallRule(("ioctl",), "SCMP_ACT_ERRNO", None, (SyscallArgument(1, number, "SCMP_CMP_EQ"),))
        for number in range(20_000)
    ]
    with pytest.raises(UsageError, match="4096 different rules"):
        compile_filter(Seccomp("SCMP_ACT_ALLOW", syscalls=tuple(rules)))
    with pytest.raises(UsageError, match=r"a filter of [0-9]+ instructions"):
        compile_filter(Seccomp("SCMP_ACT_ALLOW", syscalls=tuple(rules[:4096])))


ENDLESS = """
import os
from runtime.config.seccomp import Seccomp, SyscallArgument, SyscallRule
from runtime.errors import UsageError
from runtime.seccomp import compile
compile.LONGEST_S = 0.2
both = lambda n: (SyscallArgument(1, n, "SCMP_CMP_GE"), SyscallArgument(2, n, "SCMP_CMP_LT"))
rules = [SyscallRule(("ioctl",), "SCMP_ACT_ERRNO", None, both(n)) for n in range(400)]
try:
    compile.compiled(Seccomp("SCMP_ACT_ALLOW", syscalls=tuple(rules)))
except UsageError as error:
    print(error.message, flush=True)
os._exit(0)
"""


def test_rules_that_libseccomp_is_not_done_with_are_refused() -> None:
    done = subprocess.run([sys.executable, "-c", ENDLESS], capture_output=True, text=True, timeout=60)
    assert done.stdout == "config.json: linux.seccomp: libseccomp is not done with its 400 rules after 0.2 s\n"
