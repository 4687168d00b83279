"""The plans of rungs: an isolation as an OCI configuration, and what that has no words for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config.default import DEFAULT_CAPABILITIES
from runtime.config.process import Capabilities, Process
from runtime.config.resources import Resources
from runtime.config.seccomp import Seccomp
from runtime.config.types import Config, IDMapping, Linux, Mount, Namespace, TimeOffset
from runtime.plan import network
from runtime.plan.bundle import Choices, bundle_plan
from runtime.plan.cgroup import address_steps
from runtime.plan.constants import ALL_CAPABILITIES, CAPABILITIES
from runtime.plan.execution import exec_plan
from runtime.plan.network import Attachment, Connection
from runtime.plan.root import ImageRoot, identity_files
from runtime.plan.steps import Landlock, Plan
from runtime.seccomp.default import default_profile
from runtime.spec import Spec, configuration
from testbed.platforms.rungs.landlock import landlock_step
from testbed.platforms.rungs.tight import tight_profile
from testbed.rungs.model import Isolation

# Where a program whose root is the host's finds what its image's files hide.
HOST = "/host"
# The host's ids of a user namespace's root and of those after it: nobody gives out any between 1,879,048,192 and
# 2,147,483,647 (systemd, docs/UIDS-GIDS.md).
FIRST_ID, IDS = 2_000_000_000, 65_536
_BIND_WHOLE = ("rbind",)
_HOST_DEVICES = Mount("/dev", "bind", "/dev", _BIND_WHOLE)
_FILTERS: Mapping[str, tuple[str, ...]] = MappingProxyType({"all": CAPABILITIES, "default": DEFAULT_CAPABILITIES})


class Made(Struct, frozen=True):
    """What an instance is made of: its ``isolation``, which is ``whole`` but for the walls that are left out, and the
    directory ``memory``, on which its mount namespace has what it keeps in memory. ``capabilities`` is the mask of
    those that we have ourselves, and can give. ``clocks_s`` is what the host's monotonic and boot-time clocks say when
    it is planned: in a time namespace they begin anew then."""

    isolation: Isolation
    whole: Isolation
    memory: str
    capabilities: int = ALL_CAPABILITIES
    landlock: int = 7
    clocks_s: tuple[int, int] = (0, 0)

    @property
    def restriction(self) -> Landlock | None:
        """The step that restricts it by Landlock, as far as a kernel with version ``landlock`` of that can."""
        return landlock_step(self.landlock) if self.isolation.landlock else None

    @property
    def grantable(self) -> int:
        """The mask of the capabilities that its workloads can have: those of a user namespace are all its own."""
        return ALL_CAPABILITIES if "user" in self.isolation.namespaces else self.capabilities


def rung_plan(made: Made, spec: Spec, hierarchies: Hierarchies, cgroup: str, attachment: Attachment) -> Plan:
    """Return the plan that makes the cgroup ``cgroup`` and starts ``spec`` in it, behind the walls of a rung."""
    isolation, mapped = made.isolation, "user" in made.isolation.namespaces
    own = isolation.network == "stack" and spec.link is not None
    connection = Connection(spec.link, attachment, made_outside=mapped) if own and spec.link is not None else None
    image = ImageRoot(
        spec.layers,
        identity_files(spec.hostname, spec.hosts, spec.resolver),
        memory_at=made.memory,
        owner=FIRST_ID if mapped else 0,
        quota_bytes=isolation.quota << 20,
    )
    choices = Choices(
        "",
        cgroup,
        start_immediately=True,
        makes_cgroup=True,
        grantable=made.grantable,
        chroot=isolation.root != "pivot_root",
        landlock=made.restriction,
    )
    plan = bundle_plan(configure(made, spec), hierarchies, "", choices, image=image, connection=connection)
    if own or spec.link is None:
        return plan
    given = network.address_steps(spec.link, attachment.bridge_index)
    held = address_steps(hierarchies, cgroup, spec.link.address.ip) if isolation.network == "address" else ()
    return replace(plan, parent=(*given, *plan.parent, *held))


def join_plan(
    made: Made, spec: Spec, hierarchies: Hierarchies, pid: int, cgroup: str, *, terminal: bool = False
) -> Plan:
    """Return the plan that starts the process of ``spec`` behind the walls of the instance whose first process is
    ``pid``."""
    config = configure(made, spec)
    assert config.process is not None
    process = replace(config.process, terminal=terminal)
    chroot = made.isolation.root != "pivot_root"
    return exec_plan(
        process,
        config,
        hierarchies,
        pid,
        cgroup,
        0,
        False,
        made.grantable,
        chroot=chroot,
        landlock=made.restriction,
    )


def configure(made: Made, spec: Spec) -> Config:
    """Return the configuration of a workload behind the walls of a rung."""
    isolation, config = made.isolation, configuration(spec)
    assert config.process is not None
    return replace(
        config,
        process=_configure_process(isolation, config.process),
        hostname=config.hostname if "uts" in isolation.namespaces else "",
        mounts=_choose_mounts(isolation, config.mounts),
        linux=_configure_kernel(made, config.linux),
    )


def bounding_set(isolation: Isolation) -> tuple[str, ...]:
    """Return the capabilities that a workload can have."""
    words: Mapping[object, tuple[str, ...]] = {"all": CAPABILITIES, "default": DEFAULT_CAPABILITIES, "none": ()}
    named = isolation.capabilities
    return words[named] if isinstance(named, str) else named


def _configure_process(isolation: Isolation, process: Process) -> Process:
    bounding = bounding_set(isolation)
    own = bounding if process.user.uid == 0 else ()
    sets = Capabilities(bounding=bounding, effective=own, permitted=own)
    return replace(process, capabilities=sets, no_new_privileges=isolation.no_new_privileges)


def _configure_kernel(made: Made, linux: Linux) -> Linux:
    isolation = made.isolation
    kinds = ("mount", *(kind for kind in isolation.namespaces if kind != "mount"))
    maps = (IDMapping(0, FIRST_ID, IDS),) if "user" in kinds else ()
    return replace(
        linux,
        namespaces=tuple(Namespace(kind) for kind in kinds),
        uid_mappings=maps,
        gid_mappings=maps,
        resources=_choose_limits(isolation, linux.resources or Resources()),
        seccomp=_choose_filter(made),
        time_offsets=_set_back(made.clocks_s) if "time" in kinds else {},
        masked_paths=linux.masked_paths if isolation.masks else (),
        readonly_paths=linux.readonly_paths if isolation.masks else (),
    )


def _set_back(clocks_s: tuple[int, int]) -> Mapping[str, TimeOffset]:
    return {name: TimeOffset(-said_s) for name, said_s in zip(("monotonic", "boottime"), clocks_s, strict=True)}


def _choose_limits(isolation: Isolation, limits: Resources) -> Resources:
    return replace(
        limits,
        devices=limits.devices if isolation.devices == "cgroup" else (),
        memory=limits.memory if "memory" in isolation.limits else None,
        cpu=limits.cpu if "cpus" in isolation.limits else None,
        pids=limits.pids if "pids" in isolation.limits else None,
    )


def _choose_filter(made: Made) -> Seccomp | None:
    """Return the filter that goes with the capabilities that the rung has when no wall is left out: without the wall
    of capabilities, that of system calls is still whole."""
    if made.isolation.system_calls == "all":
        return None
    capabilities = bounding_set(made.whole)
    return default_profile(capabilities) if made.isolation.system_calls == "default" else tight_profile(capabilities)


def _choose_mounts(isolation: Isolation, mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Return the mounts of a workload's configuration as a rung has them."""
    chosen = [one for mount in mounts for one in _choose_mount(isolation, mount)]
    if isolation.devices == "host":
        chosen.append(_HOST_DEVICES)
    if isolation.root == "host":
        chosen.append(Mount(HOST, "bind", "/", _BIND_WHOLE))
    return tuple(chosen)


def _choose_mount(isolation: Isolation, mount: Mount) -> tuple[Mount, ...]:
    mapped = "user" in isolation.namespaces
    if mount.destination == "/sys" and not isolation.read_only_sysfs:
        return (replace(mount, options=tuple(word for word in mount.options if word != "ro")),)
    if mount.destination == "/sys" and isolation.network != "stack":
        # A network namespace has one sysfs: who mounts it read-only first, makes it so for all that share its stack.
        return (replace(mount, options=tuple("rro" if word == "ro" else word for word in mount.options)),)
    if mount.destination == "/dev" or mount.destination.startswith("/dev/"):
        if isolation.devices == "host":
            return ()
        # The root of a user namespace may mount only what shows namespaces that are its own (mq_overview(7)).
        return () if mount.type == "mqueue" and mapped and "ipc" not in isolation.namespaces else (mount,)
    if mount.type == "proc" and mapped and "pid" not in isolation.namespaces:
        return (Mount("/proc", "bind", "/proc", _BIND_WHOLE),)
    return (mount,)
