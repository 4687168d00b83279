"""The ``linux.seccomp`` object: a system call filter (runtime-spec 1.3, config-linux.md, "Seccomp")."""

from runtime.config.decode import ArgumentIndex, Errno, Object, Uint64


class SyscallArgument(Object, frozen=True):
    """A comparison of argument ``index`` (0 to 5) by ``op`` (SCMP_CMP_...); only MASKED_EQ uses ``value_two``."""

    index: ArgumentIndex
    value: Uint64
    op: str
    value_two: Uint64 = 0


class SyscallRule(Object, frozen=True):
    """A rule: the kernel takes ``action`` (SCMP_ACT_...) for the system calls in ``names`` if all of ``args`` hold."""

    names: tuple[str, ...]
    action: str
    errno_ret: Errno | None = None
    args: tuple[SyscallArgument, ...] = ()


class Seccomp(Object, frozen=True):
    """A filter: its rules, the action for other calls, architectures (SCMP_ARCH_...), flags (SECCOMP_FILTER_...)."""

    default_action: str
    default_errno_ret: Errno | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[SyscallRule, ...] = ()
