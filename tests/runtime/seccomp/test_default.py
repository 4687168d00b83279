"""The default filter forbids the calls that escapes were made of, and lets programs run."""

from __future__ import annotations

import errno

import pytest

from runtime.config.default import DEFAULT_CAPABILITIES
from runtime.config.seccomp import Seccomp, SyscallRule
from runtime.seccomp.default import default_profile
from tests.runtime.seccomp.test_filter import outcome

# x86-64's numbers
CALLS = {
    "mount": (165, 0, 0, 0, 0, 0),
    "add_key": (248, 0, 0, 0, 0, 0),
    "keyctl": (250, 0, 0, 0, 0, 0),
    "unshare": (272, 0x10000000),
    "open_by_handle_at": (304, 0, 0, 0),
    "setns": (308, 0, 0),
    "bpf": (321, 0, 0, 0),
    "userfaultfd": (323, 0),
    "clone into a user namespace": (56, 0x10000011, 0, 0, 0, 0),
    "open_tree": (428, 0, 0, 0),
    "fsopen": (430, 0, 0),
    "socket to the hypervisor": (41, 40, 1, 0),
}


@pytest.mark.parametrize("name", CALLS)
def test_it_forbids(name: str) -> None:
    assert outcome(default_profile(DEFAULT_CAPABILITIES), *CALLS[name]) == (0, -1, errno.EPERM)


def test_clone3_looks_absent() -> None:
    assert outcome(default_profile(DEFAULT_CAPABILITIES), 435, 0, 0)[2] == errno.ENOSYS


def test_a_capability_opens_what_it_is_for() -> None:
    assert outcome(default_profile(("CAP_SYS_ADMIN",)), 272, 0) == (0, 0, 0)


def test_an_ordinary_socket_is_allowed() -> None:
    assert outcome(default_profile(DEFAULT_CAPABILITIES), 41, 1, 1, 0)[1] > 2


def test_calls_newer_than_libseccomp_are_allowed() -> None:
    # fchmodat2(AT_FDCWD, "", 0, 0): the kernel's own answer, be it that it has no such call.
    assert outcome(default_profile(DEFAULT_CAPABILITIES), 452, -100, 0, 0, 0)[2] in (errno.EFAULT, errno.ENOSYS)


def test_calls_newer_than_libseccomp_do_not_hinder_a_filter_of_several_architectures() -> None:
    architectures = ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")
    rule = SyscallRule(("fchmodat2", "getpriority"), "SCMP_ACT_ERRNO", errno.ENOTTY)
    assert (
        outcome(Seccomp("SCMP_ACT_ALLOW", architectures=architectures, syscalls=(rule,)), 140, 0, 0)[2] == errno.ENOTTY
    )
