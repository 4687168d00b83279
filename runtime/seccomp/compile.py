"""Call libseccomp (seccomp_init(3) and its relatives) through ctypes. This is a module of its own because it takes long
to import."""

from __future__ import annotations

import _thread
import ctypes
import errno
import os
from typing import Any

from runtime.config.decode import short
from runtime.config.seccomp import Seccomp, SyscallRule
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.seccomp.filter import ACTIONS, FLAGS, NEW_LISTENER, OPERATORS, Filter
from runtime.seccomp.ranges import shortened

_OPTIMIZE, _BINARY_TREE = 8, 2  # SCMP_FLTATR_CTL_OPTIMIZE and its value, libseccomp 2.5
_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_NOT_NOTIFIED = ("sendmsg", "execve", "read", "write", "close")  # the launcher's own, before the exec

_MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS, linux/bpf_common.h
LONGEST_S = 10.0

# Calls newer than libseccomp 2.5, that of Debian 12, under their numbers, which all architectures share from 424 on
# (arch/x86/entry/syscalls/syscall_64.tbl). What glibc 2.39 and later use must not be refused for an old libseccomp.
_NEWER = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}

_Added = tuple[object, ...]  # a rule as libseccomp gets it: the call, the action, the comparisons


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def _library() -> Any:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError as error:
        raise PrerequisiteError(f"load libseccomp: {error}", "install the package libseccomp2") from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def _action(name: str, number: int | None, place: str) -> int:
    if name not in ACTIONS:
        raise UsageError(f"config.json: {place}: no action is called {name!r}", f"one of {', '.join(ACTIONS)}")
    if number is not None and name not in _WITH_ERRNO:
        raise UsageError(f"config.json: {place}: {name} returns no errno")
    value = errno.EPERM if number is None else number
    return ACTIONS[name] | (value & 0xFFFF if name in _WITH_ERRNO else 0)


def _flags(config: Seccomp) -> int:
    unknown = [name for name in config.flags if name not in FLAGS]
    if unknown:
        raise UsageError(f"config.json: linux.seccomp.flags: no flag is called {unknown[0]!r}")
    notifies = any(rule.action == "SCMP_ACT_NOTIFY" for rule in config.syscalls)
    if notifies and not config.listener_path:
        raise UsageError("config.json: linux.seccomp.listenerPath: missing, and there are rules that notify")
    return sum(FLAGS[name] for name in set(config.flags)) | (NEW_LISTENER if notifies else 0)


def compiled(config: Seccomp) -> Filter:
    """Compile the filter of a configuration. Like runc and crun, leave out system calls that libseccomp does not know.

    Raises UsageError naming the field that is wrong, or saying that it took too long, and PrerequisiteError without
    libseccomp.
    """
    # libseccomp may need hours for a hundred rules, and cannot be stopped. It runs in a thread of its own, which ends
    # with a command that gives up.
    done = _thread.allocate_lock()
    done.acquire()
    results: list[Filter | Exception] = []

    def work() -> None:
        try:
            results.append(_compiled(config))
        except Exception as error:
            results.append(error)
        done.release()

    _thread.start_new_thread(work, ())
    if not done.acquire(timeout=LONGEST_S):
        count = len(config.syscalls)
        raise UsageError(
            f"config.json: linux.seccomp: libseccomp is not done with its {count} rules after {LONGEST_S} s",
            "give fewer rules, or fewer comparisons of one system call",
        )
    (result,) = results
    if isinstance(result, Exception):
        raise result
    return result


def _compiled(config: Seccomp) -> Filter:
    flags = _flags(config)
    if config.default_action == "SCMP_ACT_NOTIFY":
        raise UsageError("config.json: linux.seccomp.defaultAction: NOTIFY would wait for itself")
    default = _action(config.default_action, config.default_errno_ret, "linux.seccomp.defaultAction")
    library = _library()
    context = library.seccomp_init(default)
    if not context:
        raise TestbedError("seccomp_init: libseccomp refused the default action")
    try:
        # A binary tree instead of a list, as other runtimes load it; ranges.py makes it shorter still.
        library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE)
        for name in config.architectures:
            token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
            if not token:
                raise UsageError(f"config.json: linux.seccomp.architectures: libseccomp knows no {name!r}")
            if (result := library.seccomp_arch_add(context, token)) not in (0, -errno.EEXIST):
                raise TestbedError(f"seccomp_arch_add {name}: {os.strerror(-result)}")
        added: set[_Added] = set()
        for index, rule in enumerate(config.syscalls):
            _add_rule(library, context, rule, default, f"linux.seccomp.syscalls[{index}]", added)
        program = shortened(_export(library, context))
        if len(program) > _MOST_INSTRUCTIONS * 8:
            raise UsageError(
                f"config.json: linux.seccomp: a filter of {len(program) // 8} instructions",
                f"the kernel takes {_MOST_INSTRUCTIONS}: give fewer rules",
            )
        return Filter(program, flags)
    finally:
        library.seccomp_release(context)


def _add_rule(library: Any, context: int, rule: SyscallRule, default: int, place: str, added: set[_Added]) -> None:
    action = _action(rule.action, rule.errno_ret, f"{place}.action")
    if rule.action == "SCMP_ACT_NOTIFY" and (own := set(rule.names) & set(_NOT_NOTIFIED)):
        raise UsageError(f"config.json: {place}: {min(own)} cannot be notified: the launcher uses it to get started")
    if action == default:
        return
    comparisons: list[tuple[int, int, int, int]] = []
    for argument in rule.args:
        if argument.op not in OPERATORS:
            raise UsageError(f"config.json: {place}.args: no operator is called {short(argument.op)!r}")
        masked = argument.op == "SCMP_CMP_MASKED_EQ"
        comparisons.append(
            (argument.index, OPERATORS[argument.op], argument.value, argument.value_two if masked else 0)
        )
    # libseccomp takes one comparison of each argument in a rule; of more, any one is enough (as in runc).
    indexes = [argument.index for argument in rule.args]
    groups = [comparisons] if len(set(indexes)) == len(indexes) else [[one] for one in comparisons]
    for name in rule.names:
        number = _number_of(library, name)
        if number is None:
            continue
        for group in groups:
            if (number, action, *group) in added:  # a repeated rule would cost libseccomp as much as a new one
                continue
            added.add((number, action, *group))
            if len(added) > _MOST_INSTRUCTIONS:
                raise UsageError(
                    f"config.json: {place}: more than {_MOST_INSTRUCTIONS} different rules",
                    "the kernel takes no filter of so many",
                )
            array = (_Comparison * len(group))(*(_Comparison(*one) for one in group))
            result = library.seccomp_rule_add_array(context, action, number, len(group), array)
            if result == -errno.EFAULT and name in _NEWER:
                continue  # it cannot tell what the call is called on another architecture of the filter
            if result not in (0, -errno.EEXIST):
                raise TestbedError(f"config.json: {place}: add {name}: {os.strerror(-result)}")


def _number_of(library: Any, name: str) -> int | None:
    """Return the number by which libseccomp takes a system call; None for one that nobody knows."""
    number: int = library.seccomp_syscall_resolve_name(name.encode())
    return number if number != -1 else _NEWER.get(name)  # __NR_SCMP_ERROR


def _export(library: Any, context: int) -> bytes:
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        if (result := library.seccomp_export_bpf(context, descriptor)) != 0:
            raise TestbedError(f"seccomp_export_bpf: {os.strerror(-result)}")
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)
