"""Plan a container: its configuration's namespaces, mounts, devices, limits and process (runtime-spec 1.3)."""

from __future__ import annotations

from errno import ENOSYS, EPERM
from signal import SIGKILL

from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config import mount_options
from runtime.config.process import Process
from runtime.config.resources import Resources
from runtime.config.types import Config, Mount
from runtime.errors import UsageError
from runtime.plan import constants as k
from runtime.plan import network
from runtime.plan import steps as s
from runtime.plan.devices import every_device, host_node_steps, link_steps, node_steps, outside_node_steps
from runtime.plan.execution import (
    NAMESPACE_FLAGS,
    directory_steps,
    keeps_groups,
    kinds_of,
    memory_policy_steps,
    process_end,
    seccomp_step,
)
from runtime.plan.mounts import (
    DEV,
    FIRST_HELD,
    MountMaps,
    held_first,
    inside,
    is_bind,
    is_shared,
    may_share,
    mount_steps,
    propagations,
    shared_tmpfs_steps,
    shown_sysfs,
)
from runtime.plan.process import label_steps
from runtime.plan.provision import provide
from runtime.plan.root import (
    HOLD_ROOT,
    ImageRoot,
    directory_root_steps,
    file_steps,
    hiding_steps,
    image_root_steps,
    mapped_root_steps,
)
from runtime.plan.sharing import lend_steps, lent_step

# These are the points at which the first process waits for the runtime.
RECORDED, CREATED, STARTING, PLACED, CONNECTED, POOLED = 0, 1, 2, 3, 4, 5
_NOTIFY, _NOTIFY_OPTIONS = "/run/notify", ("bind", "ro", "nosuid", "nodev", "noexec")


class Choices(Struct, frozen=True):
    """Holds what the command line adds: the absolute path ``rootfs``, the cgroup's name (empty: none), and the flags of
    create.

    ``start_immediately``: the process is executed without waiting for anybody, which suits only a container with
    nothing to do in between. ``makes_cgroup``: the cgroup does not exist yet, but its parent does. ``scope`` names the
    systemd unit that the cgroup is; only the interpreter deals with it.
    ``mapped``: we are already in a user namespace whose root may not make nodes, as under a rootless engine.
    ``grantable`` is the mask of the capabilities that we can grant.
    ``listen_fds`` counts the first preserved descriptors that are sockets for the container; ``notify`` is the
    directory of the socket on which it reports that it is ready.
    ``host_nodes``: the container has a user namespace, and we may not make nodes for it. ``ends_with_parent``: the
    container is killed when the thread that started it ends. ``waits_connected``: the process waits, before it executes
    its program, until its parent has connected its network namespace. ``pooled``: it does all but execute its program,
    and waits there until its parent tells it to go on. ``chroot``: its root is only changed to, which leaves the host's
    tree where it is. ``landlock`` is the step that confines it so, or None. ``lender`` is the directory of /proc of the
    process whose /dev/shm it has, or empty.
    """

    rootfs: str
    cgroup: str
    preserve_fds: int = 0
    pivot: bool = True
    keyring: str = ""
    rootless: bool = False
    start_immediately: bool = False
    scope: str = ""
    mapped: bool = False
    grantable: int = k.ALL_CAPABILITIES
    listen_fds: int = 0
    notify: str = ""
    host_nodes: bool = False
    makes_cgroup: bool = False
    ends_with_parent: bool = False
    waits_connected: bool = False
    pooled: bool = False
    chroot: bool = False
    landlock: s.Step | None = None
    lender: str = ""


def _limits(config: Config, choices: Choices) -> Resources:
    """Return the limits that the plan sets."""
    limits = config.linux.resources or Resources()
    if choices.scope and limits.pids and limits.pids.limit == 1:  # systemd sets it once the launcher has gone
        limits = replace(limits, pids=None)
    if choices.rootless or choices.mapped:  # no node that the container could make would work in its user namespace
        limits = replace(limits, devices=())
    return limits


def _parent_steps(config: Config) -> list[s.Step]:
    steps: list[s.Step] = []
    kinds = kinds_of(config)
    if config.process is not None and config.process.oom_score_adj is not None:
        steps.append(s.Write("/proc/self/oom_score_adj", (str(config.process.oom_score_adj),)))
    joins = [s.JoinNamespace(kinds[kind], flag) for kind, flag in NAMESPACE_FLAGS.items() if kinds.get(kind)]
    of_mounts = [step for step in joins if step.flag == k.CLONE_NEWNS]
    steps += [step for step in joins if step not in of_mounts]
    if kinds.get("time") == "":
        steps.append(s.Unshare(k.CLONE_NEWTIME))
        offsets = tuple(f"{name} {o.secs} {o.nanosecs}" for name, o in config.linux.time_offsets.items())
        if offsets:
            steps.append(s.Write(k.TIME_OFFSETS, offsets))
    return [*steps, *of_mounts]  # the mount namespace is joined last: it has another /proc


def _namespace_steps(config: Config, choices: Choices, networking: tuple[s.Step, ...]) -> list[s.Step]:
    kinds = kinds_of(config)
    recorded = s.Sync(RECORDED, "the process is there; its maps of ids and its record are to be written")
    waits = not choices.start_immediately or kinds.get("user") == ""  # somebody else must write its maps of ids
    steps: list[s.Step] = [recorded] if waits else []
    if config.process is not None:
        steps += label_steps(config.process)
    if "user" in kinds:
        steps.append(s.SetUser(0, 0, keep_groups=keeps_groups(config, choices.rootless)))
    steps.append(s.SetNonDumpable())
    if choices.keyring:
        steps.append(s.SessionKeyring(choices.keyring, tolerate=(ENOSYS,)))  # the kernel may lack keyrings
    steps += networking
    if config.hostname:
        steps.append(s.SetHostname(config.hostname))
    if config.domainname:
        steps.append(s.SetDomainname(config.domainname))
    for name, value in config.linux.sysctl.items():
        steps.append(s.Write(f"/proc/sys/{name.replace('.', '/')}", (value,)))
    return steps


def _root_steps(config: Config, choices: Choices, image: ImageRoot | None) -> list[s.Step]:
    if "mount" not in kinds_of(config):  # the mount namespace is the caller's and stays as it is
        return [s.Chdir(choices.rootfs), HOLD_ROOT]
    of_host, _ = propagations(config.linux.rootfs_propagation)
    root = image_root_steps(image) if image else directory_root_steps(choices.rootfs)
    return [s.Mount("", "/", "", of_host), *root]


def _enter_steps(config: Config, choices: Choices) -> list[s.Step]:
    if choices.chroot or "mount" not in kinds_of(config):
        return [s.Chroot("."), s.Chdir("/")]
    if choices.pivot:
        enter: list[s.Step] = [s.PivotRoot(".", "."), s.Unmount(".", k.MNT_DETACH), s.Chdir("/")]
    else:
        enter = [s.Mount(".", "/", "", k.MS_MOVE), s.Chroot("."), s.Chdir("/")]
    _, of_root = propagations(config.linux.rootfs_propagation)
    return [*enter, s.Mount("", "/", "", of_root)] if of_root else enter


def _protecting_steps(config: Config) -> list[s.Step]:
    """Write-protect what had to stay writable until now."""
    steps = list[s.Step]()
    if "mount" not in kinds_of(config):
        return steps
    of_dev = [m for m in config.mounts if inside(m.destination) == DEV and not is_bind(m)]
    if of_dev and mount_options.parse(of_dev[-1].options).flags & k.MS_RDONLY:
        steps.append(s.MountAttributes("/dev", k.MOUNT_ATTR_RDONLY))
    if config.root.readonly:
        steps.append(s.MountAttributes("/", k.MOUNT_ATTR_RDONLY))
    return steps


def _service_variables(choices: Choices) -> list[str]:
    """Return the environment variables that sd_listen_fds(3) and sd_notify(3) read, named as runc names them."""
    listening = [f"LISTEN_FDS={choices.listen_fds}", "LISTEN_PID=1"] if choices.listen_fds else []
    return [*listening, f"NOTIFY_SOCKET={_NOTIFY}/notify.sock"] if choices.notify else listening


def _mounts(
    config: Config, hierarchies: Hierarchies, bundle: str, choices: Choices, maps: MountMaps, memory: str
) -> tuple[list[s.Step], list[s.Step]]:
    """Return the steps for mounts and devices: those that the launcher performs before it clones, and those performed
    in the root.

    With ``memory``, the root has a tmpfs there already, which hides what the host has at its path, and every tmpfs of
    the configuration becomes a directory of it.
    """
    kinds, linux = kinds_of(config), config.linux
    of_host, of_root = propagations(linux.rootfs_propagation)
    own_dev = not any(inside(mount.destination) == DEV and is_bind(mount) for mount in config.mounts)
    devices = every_device(linux.devices) if own_dev else []  # a bound /dev is the host's and stays as it is
    outside: list[s.Step] = []
    if "user" not in kinds and not choices.mapped:
        nodes = node_steps(devices)
    elif choices.mapped or choices.host_nodes:
        nodes = host_node_steps(devices)
    else:
        outside, nodes = outside_node_steps(devices, linux) if devices else ([], [])
    no_sysfs = kinds.get("user") == "" and kinds.get("network") != ""
    steps: list[s.Step] = []
    held: list[s.Step] = []
    first = FIRST_HELD + sum(isinstance(step, s.OpenTree) for step in outside)
    lent: tuple[s.Step, ...] = ()
    if choices.lender:
        outside += lend_steps(choices.lender, first)
        first, lent = first + 1, (lent_step(first),)
    notify = [Mount(_NOTIFY, "bind", choices.notify, _NOTIFY_OPTIONS)] if choices.notify else []
    for mount in (*config.mounts, *notify) if "mount" in kinds else ():  # without it they would be made on the host
        shown = shown_sysfs(mount) if no_sysfs and mount.type == "sysfs" else mount
        if memory and may_share(mount):
            steps += shared_tmpfs_steps(mount, memory)
        elif memory and is_bind(mount):
            made = mount_steps(shown, hierarchies, choices.cgroup, bundle, maps)
            sources, made = held_first(made, first + len(held), lambda _: True, of_host & ~k.MS_REC)
            held += sources
            steps += made
        else:
            steps += mount_steps(shown, hierarchies, choices.cgroup, bundle, maps)
        if inside(mount.destination) == ".":
            steps += [s.Chdir(choices.rootfs), HOLD_ROOT]  # this mount is the root from here on
    steps += [*lent, *nodes, *(link_steps() if own_dev else ())]
    if choices.rootless:  # an unprivileged user cannot copy mounts on the host
        pass
    elif "user" in kinds:  # as when the kernel copies a tree into one, the copies cannot affect the host's mounts
        more, steps = held_first(steps, first + len(held), lambda _: True, of_host & ~k.MS_REC)
        held += more
    elif of_root & k.MS_SHARED:
        more, steps = held_first(steps, first + len(held), is_shared, 0)
        held += more
    return [*outside, *held], steps


def bundle_plan(
    config: Config,
    hierarchies: Hierarchies,
    bundle: str,
    choices: Choices,
    *,
    image: ImageRoot | None = None,
    connection: network.Connection | None = None,
) -> s.Plan:
    """Return the plan that creates the container. It stops at Sync steps, and at WaitStart until it is started.

    The root is the directory ``choices.rootfs``, or ``image``; a network namespace of its own gets ``connection``.
    Raises UsageError naming what this host or this runtime cannot do.
    """
    process = config.process
    if process is None:
        raise UsageError("config.json: process: missing, and there is nothing else to start")
    process = replace(process, env=(*process.env, *_service_variables(choices)))
    limits = _limits(config, choices)
    provision = provide(config, hierarchies, choices.cgroup, limits, connection, make=choices.makes_cgroup)
    maps, memory = MountMaps(config.linux), image.memory if image else ""
    outside, mounts = _mounts(config, hierarchies, bundle, choices, maps, memory)
    later = ("time", "cgroup", "network")  # other code handles these
    kinds = kinds_of(config)
    flags = sum(flag for kind, flag in NAMESPACE_FLAGS.items() if kinds.get(kind) == "" and kind not in later)
    hidden = (config.linux.readonly_paths, config.linux.masked_paths, image.empty if image else 0)
    if image and image.owner:
        outside += mapped_root_steps(image, maps.path(Mount("/")))
    parent = (*maps.steps.values(), *outside, *provision.parent, *_parent_steps(config))
    child = (
        *provision.first,
        *_namespace_steps(config, choices, provision.networking),
        *_root_steps(config, choices, image),
        *mounts,
        *_stream_steps(process),
        *hiding_steps(*hidden),
        *_hooks_of_create(config),
        *_enter_steps(config, choices),
        *directory_steps(process),
        *(file_steps(image) if image else ()),
        *_protecting_steps(config),
        *_personality(config),
        *memory_policy_steps(config),
        *process_end(
            process,
            preserve_fds=choices.preserve_fds,
            keep_groups=keeps_groups(config, choices.rootless),
            grantable=choices.grantable,
            seccomp=seccomp_step(config),
            landlock=choices.landlock,
            wait=_waiting_steps(config, choices),
            last=_parents_steps(choices),
            hold=(s.Sync(POOLED, "all is there but the program"),) if choices.pooled else (),
            check=choices.pooled or not choices.start_immediately,
        ),
    )
    return s.Plan(child, parent, flags | provision.flags, provision.into_cgroup)


def _stream_steps(process: Process) -> tuple[s.Step, ...]:
    uid, size = process.user.uid, process.console_size
    if process.terminal:
        return (s.Terminal(uid, size.height, size.width) if size else s.Terminal(uid),)
    return (s.Setsid(tolerate=(EPERM,)), s.ChownStdio(uid))


def _hooks_of_create(config: Config) -> tuple[s.Step, ...]:
    hooks = config.hooks
    if hooks.prestart or hooks.create_runtime or hooks.create_container:
        return (s.Sync(CREATED, "the mounts are made; hooks run before the root is entered"),)
    return ()


def _waiting_steps(config: Config, choices: Choices) -> tuple[s.Step, ...]:
    """Return the steps that wait once everything is made."""
    waiting: tuple[s.Step, ...] = () if choices.start_immediately else (s.WaitStart(),)
    if config.hooks.start_container:
        waiting += (s.Sync(STARTING, "it is being started; hooks run inside"),)
    return waiting


def _parents_steps(choices: Choices) -> tuple[s.Step, ...]:
    """Tie the command to its parent. These steps come after the change of user, which clears the death signal, and
    before the parent's last message: the parent may have died before the signal was set, unnoticed."""
    steps: tuple[s.Step, ...] = (s.DeathSignal(SIGKILL),) if choices.ends_with_parent else ()
    if choices.waits_connected:
        steps += (s.Sync(CONNECTED, "its network namespace is there, to be connected"),)
    return steps


def _personality(config: Config) -> list[s.Step]:
    if config.linux.personality is None:
        return []
    return [s.Personality({"LINUX": 0, "LINUX32": 8}[config.linux.personality.domain])]
