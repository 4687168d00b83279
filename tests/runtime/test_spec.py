"""A workload in few words stands for an OCI configuration."""

from __future__ import annotations

import os

import pytest
from msgspec.structs import replace

from runtime.config.default import DEFAULT_MOUNTS, default_config
from runtime.config.process import Capabilities
from runtime.config.resources import Cpu, DeviceRule, Memory, Pids
from runtime.config.resources import Resources as Limits
from runtime.config.validate import Host, validate
from runtime.errors import UsageError
from runtime.seccomp.default import default_profile
from runtime.spec import (
    Process,
    Resources,
    Spec,
    User,
    configuration,
    configured_limits,
    configured_process,
    cpu_quota_usec,
)

TRUE = Spec(Process(("true",)), ("/layer",), "web")


def test_it_is_a_configuration_that_the_command_line_would_take() -> None:
    warnings: list[str] = []
    validate(configuration(TRUE), Host.read(os.getpid()), warnings.append)
    assert not [warning for warning in warnings if "CAP_" not in warning], "but for what is not ours to give"


KINDS = {"mount", "pid", "uts", "ipc", "cgroup", "network"}


def test_all_its_namespaces_are_new() -> None:
    namespaces = configuration(TRUE).linux.namespaces
    assert {n.type for n in namespaces} == KINDS and not any(n.path for n in namespaces)


def test_those_that_it_shares_are_the_callers_or_at_a_path() -> None:
    shared = replace(TRUE, shared=(("network", "/proc/7/ns/net"), ("pid", ""), ("uts", "")))
    config = configuration(shared)
    paths = {n.type: n.path for n in config.linux.namespaces}
    assert paths.keys() == KINDS - {"pid", "uts"} and paths["network"] == "/proc/7/ns/net"
    assert config.hostname == "", "the host's name is not its to set"


SHM = [
    ((), True, ["tmpfs"]),
    ((), False, []),
    ((("ipc", ""),), True, ["bind"]),
    ((("ipc", "/proc/7/ns/ipc"),), True, []),
]


@pytest.mark.parametrize(("shared", "shm", "types"), SHM)
def test_shared_memory_comes_with_the_ipc_namespace(
    shared: tuple[tuple[str, str], ...], shm: bool, types: list[str]
) -> None:
    mounts = configuration(replace(TRUE, shared=shared, shm=shm)).mounts
    assert [mount.type for mount in mounts if mount.destination == "/dev/shm"] == types


def test_shared_memory_is_as_large_as_is_said() -> None:
    def options(spec: Spec) -> tuple[str, ...]:
        return next(one.options for one in configuration(spec).mounts if one.destination == "/dev/shm")

    *usual, size = options(TRUE)
    assert size == "size=65536k"
    assert options(replace(TRUE, shm_bytes=1 << 20)) == (*usual, "size=1048576")


def test_its_mounts_are_those_of_every_container() -> None:
    """But for options of /proc, and for cgroups, which it does not see."""
    proc, *others = configuration(TRUE).mounts
    assert tuple(others) == DEFAULT_MOUNTS[1:] == default_config().mounts[1:-1]
    assert (proc.destination, proc.type) == (DEFAULT_MOUNTS[0].destination, DEFAULT_MOUNTS[0].type)


def test_its_filter_is_the_default_one_of_what_it_may_do() -> None:
    assert configuration(TRUE).linux.seccomp == default_profile(TRUE.process.capabilities)
    few = replace(TRUE, process=replace(TRUE.process, capabilities=("CAP_SYS_ADMIN",)))
    assert configuration(few).linux.seccomp == default_profile(("CAP_SYS_ADMIN",))
    assert configuration(replace(TRUE, seccomp=False)).linux.seccomp is None


@pytest.mark.parametrize(("uid", "own"), [(0, ("CAP_CHOWN",)), (1, ())])
def test_only_root_starts_with_its_capabilities(uid: int, own: tuple[str, ...]) -> None:
    process = configured_process(Process(("a",), user=User(uid), capabilities=("CAP_CHOWN",)))
    assert process.capabilities == Capabilities(("CAP_CHOWN",), own, (), own, ())


@pytest.mark.parametrize(
    ("resources", "limits"),
    [
        (Resources(), Limits()),
        (Resources(1 << 20), Limits(memory=Memory(limit=1 << 20))),
        (Resources(cpus=0.5, pids=9), Limits(cpu=Cpu(quota=50_000), pids=Pids(9))),
    ],
)
def test_limits(resources: Resources, limits: Limits) -> None:
    assert configured_limits(resources) == replace(limits, devices=(DeviceRule(False),))


def test_a_share_of_the_processors_is_at_least_what_the_kernel_takes() -> None:
    assert [cpu_quota_usec(cpus) for cpus in (0.0001, 0.25, 1, 2.5)] == [1000, 25_000, 100_000, 250_000]


@pytest.mark.parametrize(
    ("process", "named"),
    [
        (Process(()), "no command"),
        (Process(("",)), "no command"),
        (Process(("a",), capabilities=("CAP_FLY",)), "unknown capabilities: CAP_FLY"),
    ],
)
def test_what_nobody_can_start_is_named(process: Process, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        configuration(replace(TRUE, process=process))
