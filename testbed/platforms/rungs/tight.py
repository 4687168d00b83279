"""A filter for a sandbox: what a server needs of the default one, without the doors by which kernels were exploited."""

from __future__ import annotations

from functools import lru_cache

from msgspec.structs import replace

from runtime.config.seccomp import Seccomp, SyscallArgument
from runtime.seccomp.default import default_profile

# What looks into other processes or holds them, keeps asynchronous requests in the kernel, watches the whole file
# system, makes files by handles, changes segments of the processor, or serves programs of half a century ago. Which
# calls exploits of the last years began with: the rules of Chromium's and systemd's sandboxes leave out the same
# (systemd.exec(5), SystemCallFilter=, @debug, @obsolete, @aio, @resources).
_DOORS = frozenset(
    """ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp process_madvise process_mrelease
    io_setup io_submit io_cancel io_destroy io_getevents io_uring_setup io_uring_enter io_uring_register
    fanotify_init fanotify_mark name_to_handle_at open_by_handle_at memfd_secret modify_ldt mknod mknodat chroot
    mbind set_mempolicy get_mempolicy adjtimex clock_adjtime clock_adjtime64 personality ioprio_set sched_setattr
    sched_setscheduler sched_setparam setpriority seccomp remap_file_pages readdir ipc socketcall syscall
    map_shadow_stack quotactl userfaultfd add_key request_key keyctl acct swapon swapoff vhangup""".split()
)
# Sockets of the local host and of the Internet: no packet, netlink, crypto, Bluetooth or vsock families.
_FAMILIES = (1, 2, 10)


@lru_cache(maxsize=4)
def tight_profile(capabilities: tuple[str, ...]) -> Seccomp:
    """Return the filter for a sandboxed process with these capabilities in its bounding set."""
    profile = default_profile(capabilities)
    rules = []
    for rule in profile.syscalls:
        names = tuple(name for name in rule.names if name not in _DOORS)
        if names == ("socket",):
            rules += [replace(rule, args=(SyscallArgument(0, family, "SCMP_CMP_EQ"),)) for family in _FAMILIES]
        elif names:
            rules.append(replace(rule, names=names))
    return replace(profile, syscalls=tuple(rules))
