"""Compiled seccomp configurations; a process compiles each of them once."""

from __future__ import annotations

from msgspec import Struct

from runtime.config.seccomp import Seccomp

# include/seccomp.h of libseccomp
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
}
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
# The architectures that Debian's libseccomp resolves (seccomp_arch_resolve_name(3)).
ARCHITECTURES = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        "AARCH64 ARM MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PARISC PARISC64 PPC PPC64 PPC64LE RISCV64 S390 "
        "S390X X32 X86 X86_64"
    ).split()
)
# SECCOMP_FILTER_FLAG_... (include/uapi/linux/seccomp.h). TSYNC is about other threads, and there are none.
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
NEW_LISTENER = 8


class Filter(Struct, frozen=True):
    """A classic BPF ``program`` (8 bytes an instruction), and the ``flags`` with which seccomp(2) loads it."""

    program: bytes
    flags: int

    @property
    def notifies(self) -> bool:
        """Return whether loading it gives a listener."""
        return bool(self.flags & NEW_LISTENER)


_MOST = 64
_compiled: dict[Seccomp, Filter] = {}


def remember(config: Seccomp, compiled: Filter) -> None:
    """Let ``compile_filter`` return this filter for the configuration from now on."""
    while len(_compiled) >= _MOST:
        _compiled.pop(next(iter(_compiled)), None)  # another thread may have done so
    _compiled[config] = compiled


def is_remembered(config: Seccomp) -> bool:
    """Return whether ``compile_filter`` has the filter already."""
    return config in _compiled


def compile_filter(config: Seccomp) -> Filter:
    """Compile the filter of a configuration. Like runc and crun, leave out system calls that libseccomp does not know.

    Raises UsageError naming the field that is wrong, and PrerequisiteError without libseccomp.
    """
    found = _compiled.get(config)
    if found is None:
        from runtime.seccomp.compile import compiled

        found = compiled(config)
        remember(config, found)
    return found
