"""What types cannot express about a configuration is refused by name, and what is allowed is let through."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from runtime.config.process import Capabilities, Process, Rlimit
from runtime.config.types import (
    Config,
    Device,
    IDMapping,
    IntelRdt,
    Linux,
    Mount,
    Namespace,
    NetDevice,
    Personality,
    Root,
    TimeOffset,
)
from runtime.config.validate import Host, is_id, validate, validate_process
from runtime.errors import UsageError
from runtime.plan.constants import ALL_CAPABILITIES

HOST = Host(apparmor=True, selinux=True, resctrl=True)
BARE = Host(apparmor=False, selinux=False, resctrl=False)
PROCESS = Process("/", ("sh",))
ONE = (IDMapping(0, 1000, 1),)
LAST_ID = (1 << 32) - 2


def config(kinds: str = "mount", linux: Linux | None = None, **others: Any) -> Config:
    """A configuration with these kinds of namespaces; ``uts=/path`` is one with a path."""
    namespaces = tuple(Namespace(*word.split("=", 1)) for word in kinds.split())
    return Config("1.3.0", Root("rootfs"), linux=replace(linux or Linux(), namespaces=namespaces), **others)


def mapping(inside: int, outside: int, size: int) -> Linux:
    return Linux(uid_mappings=(IDMapping(inside, outside, size),), gid_mappings=ONE)


USER = mapping(0, 1000, 1)
BOUND = Mount("/d", "bind", "/s", ("bind",), ONE, ONE)
ALLOWED: dict[str, Config] = {
    "every kind of namespace": config("pid network mount ipc uts user cgroup time", USER),
    "one at an absolute path": config("mount uts=/proc/1/ns/uts"),
    "one that cannot be seen": config("mount=/nowhere/ns"),
    "names in a uts namespace": config("mount uts", hostname="h" * 64, domainname="d" * 64),
    "parameters of its namespaces": config(
        "mount ipc network uts",
        Linux(sysctl={"kernel.shmmax": "1", "fs.mqueue.msg_max": "1", "net.a/b": "1", "kernel.domainname": "d"}),
    ),
    "clocks of its own": config(
        "mount time", Linux(time_offsets={"monotonic": TimeOffset(1), "boottime": TimeOffset(-1)})
    ),
    "the last id": config("mount user", mapping(0, LAST_ID, 1)),
    "a mount's own mapping": config(mounts=(BOUND,)),
    "the container's mapping": config("mount user", USER, mounts=(Mount("/d", "bind", "/s", ("idmap",)),)),
    "proc on /proc": config(mounts=(Mount("/proc", "proc", "proc"),)),
    "lxcfs's files": config(mounts=(Mount("/proc/meminfo", "bind", "/lxcfs/meminfo", ("bind",)),)),
    "devices of every type": config(linux=Linux(devices=tuple(Device("/dev/x", kind) for kind in "cbup"))),
    "propagation, recursive or not": config(linux=Linux(rootfs_propagation="rslave")),
    "a personality": config(linux=Linux(personality=Personality("LINUX32"))),
    "an interface that moves": config(
        "mount network", Linux(net_devices={"eth0": NetDevice("e" * 15), "x": NetDevice()})
    ),
    "equal limits": config(process=replace(PROCESS, rlimits=(Rlimit("RLIMIT_CPU", 1, 1), Rlimit("RLIMIT_AS", 0, 1)))),
    "labels where the kernel has them": config(process=replace(PROCESS, apparmor_profile="p", selinux_label="l")),
}


@pytest.mark.parametrize("what", ALLOWED)
def test_what_is_allowed(what: str) -> None:
    warnings: list[str] = []
    validate(ALLOWED[what], HOST, warnings.append)
    assert warnings == []


REFUSED: dict[str, list[Config]] = {
    r"linux\.namespaces\[1\]\.type: no namespace is called 'net'": [config("mount net")],
    r"linux\.namespaces\[2\]\.type: uts is there twice": [config("mount uts uts=/ns")],
    r"linux\.namespaces\[1\]\.path: 'ns/uts' is not absolute": [config("mount uts=ns/uts")],
    r"linux\.namespaces\[0\]\.path: .* is the host's mount namespace": [config("mount=/proc/self/ns/mnt")],
    r"hostname: set without a uts namespace": [config(hostname="h")],
    r"domainname: set without a uts namespace": [config(domainname="d")],
    r"hostname: longer than 64 bytes": [config("mount uts", hostname="h" * 65), config("mount uts", hostname="é" * 33)],
    r"domainname: longer than 64 bytes": [config("mount uts", domainname="d" * 65)],
    r"linux\.uidMappings: mappings are for a new user namespace": [
        config(linux=USER),
        config("mount user=/ns", USER),
        config(linux=Linux(gid_mappings=ONE)),
    ],
    r"linux\.uidMappings: a new user namespace needs": [
        config("mount user"),
        config("mount user", Linux(uid_mappings=ONE)),
        config("mount user", Linux(gid_mappings=ONE)),
    ],
    r"linux\.uidMappings: a mapping of 0 ids": [config("mount user", mapping(0, 1, 0))],
    r"linux\.uidMappings: 2 ids from 4294967294 on": [
        config("mount user", mapping(0, LAST_ID, 2)),
        config("mount user", mapping(LAST_ID, 0, 2)),
    ],
    r"linux\.timeOffsets: offsets are for a new time namespace": [
        config(linux=Linux(time_offsets={"monotonic": TimeOffset(1)})),
        config("mount time=/ns", Linux(time_offsets={"monotonic": TimeOffset(1)})),
    ],
    r"linux\.timeOffsets\.realtime: only monotonic and boottime": [
        config("mount time", Linux(time_offsets={"realtime": TimeOffset(1)})),
    ],
    r"linux\.sysctl\.\S+: needs a (ipc|network|uts) namespace": [
        config("mount", Linux(sysctl={name: "1"}))
        for name in ("kernel.msgmax", "kernel/shmall", "fs.mqueue.x", "net.core.x", "net/core/x", "kernel.domainname")
    ],
    r"linux\.sysctl\.\S+: belongs to the whole kernel": [
        config("mount ipc network uts", Linux(sysctl={name: "1"}))
        for name in ("kernel.semantics", "fs.file-max", "vm.x", "network.x", "kernel.domainname2", "net.../x")
    ],
    r"mounts\[1\]\.destination: on /proc only": [
        config(mounts=(BOUND, Mount("/proc", "tmpfs"))),
        config(mounts=(BOUND, Mount("//proc/.", "bind", "/nowhere", ("bind",)))),
    ],
    r"mounts\[0\]\.destination: /proc/sys/kernel is inside /proc": [
        config(mounts=(Mount("/proc/sys/kernel", "bind", "/s", ("bind",)),)),
        config(mounts=(Mount("proc/cpuinfo/../sys/kernel"),)),
    ],
    r"mounts\[0\]\.uidMappings: uidMappings and gidMappings come together": [
        config(mounts=(replace(BOUND, uid_mappings=()),)),
        config(mounts=(replace(BOUND, gid_mappings=()),)),
    ],
    r"mounts\[0\]\.uidMappings: ids are mapped on bind mounts only": [
        config(mounts=(replace(BOUND, type="tmpfs", options=()),)),
        config("mount user", USER, mounts=(Mount("/d", "tmpfs", options=("idmap",)),)),
    ],
    r"mounts\[0\]\.options: r?idmap without uidMappings": [
        config(mounts=(Mount("/d", "bind", "/s", (name,)),)) for name in ("idmap", "ridmap")
    ],
    r"mounts\[0\]\.uidMappings: a mapping of 0 ids": [
        config(mounts=(replace(BOUND, gid_mappings=(IDMapping(0, 0, 0),)),))
    ],
    r"linux\.readonlyPaths: 'a' is not absolute": [config(linux=Linux(readonly_paths=("/b", "a")))],
    r"linux\.devices\[1\]: type 'x' at '/dev/x'": [
        config(linux=Linux(devices=(Device("/d", "c"), Device("/dev/x", "x"))))
    ],
    r"linux\.devices\[0\]: type 'c' at 'dev/x'": [config(linux=Linux(devices=(Device("dev/x", "c"),)))],
    r"linux\.rootfsPropagation": [config(linux=Linux(rootfs_propagation=name)) for name in ("rrslave", "Shared")],
    r"linux\.personality": [
        config(linux=Linux(personality=Personality("linux"))),
        config(linux=Linux(personality=Personality("LINUX", ("X",)))),
    ],
    r"linux\.netDevices: the container has the host's network": [
        config(linux=Linux(net_devices={"eth0": NetDevice()}))
    ],
    r"linux\.netDevices: .*: not a network device's name": [
        config("mount network", Linux(net_devices={name: NetDevice(there)}))
        for name, there in (
            ("", ""),
            ("e" * 16, ""),
            ("a/b", ""),
            ("a:1", ""),
            ("a b", ""),
            ("..", ""),
            ("eth0", "é" * 8),
        )
    ],
    r"linux\.intelRdt: this runtime does not write": [config(linux=Linux(intel_rdt=IntelRdt()))],
    r"linux\.mountLabel: this runtime does not label": [config(linux=Linux(mount_label="l"))],
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_is_refused(named: str) -> None:
    for each in REFUSED[named]:
        with pytest.raises(UsageError, match=f"^config.json: {named}"):
            validate(each, HOST)


@pytest.mark.parametrize(
    ("each", "named"),
    [
        (config(process=replace(PROCESS, apparmor_profile="p")), "process.apparmorProfile: the host's kernel"),
        (config(process=replace(PROCESS, selinux_label="l")), "process.selinuxLabel: the host's kernel"),
        (config(linux=Linux(mount_label="l")), "linux.mountLabel: the host's kernel"),
        (config(linux=Linux(intel_rdt=IntelRdt())), "linux.intelRdt: this host has no resctrl"),
    ],
)
def test_what_this_host_lacks_is_refused(each: Config, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        validate(each, BARE)


def test_only_root_moves_interfaces() -> None:
    with pytest.raises(UsageError, match="an unprivileged user may not move") as caught:
        validate(config("mount network", Linux(net_devices={"a": NetDevice()})), replace(HOST, moves_devices=False))
    assert caught.value.hint == "run as root"


@pytest.mark.parametrize(
    ("process", "named"),
    [
        (replace(PROCESS, args=()), "process.args: empty"),
        (replace(PROCESS, args=("", "a")), "process.args: empty"),
        (replace(PROCESS, cwd=""), "process.cwd: '' is not absolute"),
        (replace(PROCESS, rlimits=(Rlimit("RLIMIT_AS", 1, 1),) * 2), "process.rlimits: RLIMIT_AS is there twice"),
        (replace(PROCESS, rlimits=(Rlimit("RLIMIT_AS", 2, 1),)), "process.rlimits: RLIMIT_AS: the soft limit"),
    ],
)
def test_a_process_that_cannot_be_started_is_refused(process: Process, named: str) -> None:
    with pytest.raises(UsageError, match=f"^config.json: {named}"):
        validate_process(process, HOST, ALL_CAPABILITIES)
    with pytest.raises(UsageError, match=named):
        validate(config(process=process), HOST)


@pytest.mark.parametrize("kind", ["bounding", "effective", "inheritable", "permitted", "ambient"])
def test_capabilities_of_every_set_are_looked_at(kind: str) -> None:
    warnings: list[str] = []
    sets = Capabilities(**{kind: ("CAP_CHOWN", "CAP_KILL", "CAP_X")})
    validate_process(replace(PROCESS, capabilities=sets), HOST, 1, warnings.append)
    assert warnings == ["process.capabilities: unknown or not ours to give, and left out: CAP_KILL, CAP_X"]


@pytest.mark.parametrize("name", ["a", "0", "A.b-c_d+e", "...", "-", "x" * 233])
def test_what_can_name_a_container(name: str) -> None:
    assert is_id(name) and not is_id(f"{name}/") and not is_id(f"{name}\n")
