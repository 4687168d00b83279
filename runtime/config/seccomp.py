"""System call filters: the ``linux.seccomp`` object (runtime-spec 1.3, config-linux.md, "Seccomp")."""

from runtime.config.decode import ArgumentIndex, Errno, Object, Uint64


class SyscallArgument(Object, frozen=True):
    """A comparison of argument ``index`` (0 to 5) by ``op`` (SCMP_CMP_...); ``value_two`` serves MASKED_EQ."""

    index: ArgumentIndex
    value: Uint64
    op: str
    value_two: Uint64 = 0


class SyscallRule(Object, frozen=True):
    """``action`` (SCMP_ACT_...) for the system calls in ``names`` when all of ``args`` hold."""

    names: tuple[str, ...]
    action: str
    errno_ret: Errno | None = None
    args: tuple[SyscallArgument, ...] = ()


class Seccomp(Object, frozen=True):
    """A filter: rules, the action for other calls, architectures (SCMP_ARCH_...), flags (SECCOMP_FILTER_...)."""

    default_action: str
    default_errno_ret: Errno | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[SyscallRule, ...] = ()
