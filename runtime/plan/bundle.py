"""An OCI bundle as a plan: its configuration's namespaces, mounts, devices, limits and process (runtime-spec 1.3)."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from errno import EEXIST, ENOENT, EPERM, EROFS
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from runtime import network
from runtime.cgroups import Hierarchies, join_in_two
from runtime.cgroups.resources import limit_steps
from runtime.config import mount_options
from runtime.config.decode import is_number, short
from runtime.config.process import Process
from runtime.config.types import Config, Mount
from runtime.errors import UsageError
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.devices import every_device, host_node_steps, link_steps, node_steps, outside_node_steps
from runtime.plan.mounts import (
    DEV,
    FIRST_HELD,
    MountMaps,
    held_first,
    inside,
    is_bind,
    is_shared,
    mount_steps,
    propagations,
    shown_sysfs,
)
from runtime.plan.process import credential_steps, environment, home_steps, label_steps, search_path
from runtime.plan.root import HOLD_ROOT
from runtime.seccomp.filter import compile_filter

NAMESPACE_FLAGS = {
    "user": k.CLONE_NEWUSER,
    "ipc": k.CLONE_NEWIPC,
    "uts": k.CLONE_NEWUTS,
    "network": k.CLONE_NEWNET,
    "pid": k.CLONE_NEWPID,
    "cgroup": k.CLONE_NEWCGROUP,
    "time": k.CLONE_NEWTIME,
    "mount": k.CLONE_NEWNS,
}
NAMESPACE_FILES = {**{kind: kind for kind in NAMESPACE_FLAGS}, "network": "net", "mount": "mnt"}
# Points at which the first process waits for the runtime.
RECORDED, CREATED, STARTING, PLACED = 0, 1, 2, 3
_SOCKET, _OWN_ROOT, _NAMESPACES, _FIRST_UNUSED = 110, 111, 112, 128
_NOTIFY, _NOTIFY_OPTIONS = "/run/notify", ("bind", "ro", "nosuid", "nodev", "noexec")
_MOST_PROCESSORS, _MOST_NODES = 8192, 1024  # NR_CPUS, MAX_NUMNODES at their largest


class Choices(Struct, frozen=True):
    """What the command line adds: ``rootfs`` absolute, the cgroup's name (empty: none), and the flags of create.

    ``at_once``: the process is executed without waiting for anybody; only a container with nothing to do in between
    can be started so. ``scope``: the unit of systemd's that the cgroup is, which only the interpreter deals with.
    ``mapped``: we are in a user namespace already, as under a rootless engine, whose root may not make nodes.
    ``grantable``: the capabilities, as a mask, that we have to give.
    ``listen_fds``: the first of the preserved descriptors, which are sockets for it; ``notify``: the directory of the
    socket at which it says that it is ready.
    ``host_nodes``: the container has a user namespace, and we may not make nodes for it.
    """

    rootfs: str
    cgroup: str
    preserve_fds: int = 0
    pivot: bool = True
    keyring: str = ""
    rootless: bool = False
    at_once: bool = False
    scope: str = ""
    mapped: bool = False
    grantable: int = k.ALL_CAPABILITIES
    listen_fds: int = 0
    notify: str = ""
    host_nodes: bool = False


def _kinds(config: Config) -> dict[str, str]:
    return {namespace.type: namespace.path for namespace in config.linux.namespaces}


def _parent_steps(config: Config, found: Hierarchies, choices: Choices) -> list[s.Step]:
    steps: list[s.Step] = []
    kinds = _kinds(config)
    if choices.cgroup:
        if config.linux.resources is not None:
            limits = config.linux.resources
            if choices.scope and limits.pids and limits.pids.limit == 1:  # systemd sets it once the launcher has gone
                limits = replace(limits, pids=None)
            if choices.rootless or choices.mapped:  # no node that it could make would work in its user namespace
                limits = replace(limits, devices=())
            steps += limit_steps(found, choices.cgroup, limits)
        # The caller may be kept on few processors; what the container may use its cpuset says.
        steps += [*join_in_two(found, choices.cgroup)[0], s.Affinity()]
    if config.process is not None and config.process.oom_score_adj is not None:
        steps.append(s.Write("/proc/self/oom_score_adj", (str(config.process.oom_score_adj),)))
    joins = [s.JoinNamespace(kinds[kind], flag) for kind, flag in NAMESPACE_FLAGS.items() if kinds.get(kind)]
    of_mounts = [step for step in joins if step.flag == k.CLONE_NEWNS]
    steps += [step for step in joins if step not in of_mounts]
    if kinds.get("time") == "":
        steps.append(s.Unshare(k.CLONE_NEWTIME))
        offsets = tuple(f"{name} {o.secs} {o.nanosecs}" for name, o in config.linux.time_offsets.items())
        if offsets:
            steps.append(s.Write("/proc/self/timens_offsets", offsets))
    return [*steps, *of_mounts]  # last: /proc is another's there


def _cgroup_steps(config: Config, found: Hierarchies, choices: Choices) -> list[s.Step]:
    """What the new process does first: its own part of joining its cgroups, of which it then makes the roots that it
    sees."""
    if not choices.cgroup:
        return []
    own = [s.Unshare(k.CLONE_NEWCGROUP)] if _kinds(config).get("cgroup") == "" else []
    return [*join_in_two(found, choices.cgroup)[1], *own]


def _namespace_steps(config: Config, choices: Choices) -> list[s.Step]:
    kinds = _kinds(config)
    recorded = s.Sync(RECORDED, "the process is there; its maps of ids and its record are to be written")
    steps: list[s.Step] = [] if choices.at_once else [recorded]
    if config.process is not None:
        steps += label_steps(config.process)
    if "user" in kinds:
        steps.append(s.SetUser(0, 0, keep_groups=keeps_groups(config, choices.rootless)))
    steps.append(s.Undumpable())
    if choices.keyring:
        steps.append(s.SessionKeyring(choices.keyring))
    if kinds.get("network") == "":
        steps += [s.NetlinkSocket(_SOCKET), s.Netlink(_SOCKET, network.loopback_up(), "bring lo up")]
    if config.hostname:
        steps.append(s.SetHostname(config.hostname))
    if config.domainname:
        steps.append(s.SetDomainname(config.domainname))
    for name, value in config.linux.sysctl.items():
        steps.append(s.Write(f"/proc/sys/{name.replace('.', '/')}", (value,)))
    return steps


def _root_steps(config: Config, choices: Choices) -> list[s.Step]:
    root = choices.rootfs
    if "mount" not in _kinds(config):  # it is the caller's, and stays as it is
        return [s.Chdir(root), HOLD_ROOT]
    of_host, _ = propagations(config.linux.rootfs_propagation)
    return [
        s.Mount("", "/", "", of_host),
        s.Mount(root, root, "", k.MS_BIND | k.MS_REC),
        s.Chdir(root),
        HOLD_ROOT,
    ]


def _enter_steps(config: Config, process: Process, choices: Choices) -> list[s.Step]:
    if "mount" not in _kinds(config):
        return [s.Chroot("."), s.Chdir("/"), *directory_steps(process)]
    if choices.pivot:
        enter: list[s.Step] = [s.PivotRoot(".", "."), s.Unmount(".", k.MNT_DETACH), s.Chdir("/")]
    else:
        enter = [s.Mount(".", "/", "", k.MS_MOVE), s.Chroot("."), s.Chdir("/")]
    _, of_root = propagations(config.linux.rootfs_propagation)
    if of_root:
        enter.append(s.Mount("", "/", "", of_root))
    enter += directory_steps(process)
    of_dev = [m for m in config.mounts if inside(m.destination) == DEV and not is_bind(m)]
    if of_dev and mount_options.parse(of_dev[-1].options).flags & k.MS_RDONLY:
        enter.append(s.MountAttributes("/dev", k.MOUNT_ATTR_RDONLY))
    if config.root.readonly:
        enter.append(s.MountAttributes("/", k.MOUNT_ATTR_RDONLY))
    return enter


def directory_steps(process: Process) -> list[s.Step]:
    """Make the working directory, as far as it is missing and can be made."""
    parts = [part for part in inside(process.cwd).split("/") if part != "."]
    return [
        s.Mkdir("/".join(parts[:depth]), tolerate=(EEXIST, EROFS, ENOENT, EPERM), inside=True)
        for depth in range(1, len(parts) + 1)
    ]


def process_end(
    process: Process,
    *,
    preserve_fds: int,
    keep_groups: bool,
    grantable: int,
    seccomp: s.Step | None,
    wait: tuple[s.Step, ...],
) -> list[s.Step]:
    """From the finished root to execve. ``wait`` stands where everything else that can fail has been done.

    Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before the privileges go; with it, last.
    """
    credentials = credential_steps(process, keep_groups=keep_groups, grantable=grantable)
    home, env = home_steps(process)
    look = s.LookUp(process.args[0], search_path(process.env))
    filters = (seccomp,) if seccomp else ()
    if process.no_new_privileges:
        credentials, few = _descriptors_last(credentials)
        end: tuple[s.Step, ...] = (*credentials, s.NoNewPrivileges(), look, *wait, *few, *filters)
    else:
        end = (look, *wait, *filters, *credentials)
    return [
        s.CloseOnExec(3 + preserve_fds),
        s.Chdir(process.cwd, confined=True),
        *home,
        *end,
        s.Exec(process.args, environment(env), search_path(env), at_home=bool(home)),
    ]


def _descriptors_last(credentials: tuple[s.Step, ...]) -> tuple[tuple[s.Step, ...], tuple[s.Step, ...]]:
    """The steps without a limit of descriptors that is below those that the plan itself still needs, and that limit:
    lowering it takes no privilege."""
    few = tuple(
        step
        for step in credentials
        if isinstance(step, s.SetRlimit) and step.resource == k.RLIMIT_NOFILE and step.soft < _FIRST_UNUSED
    )
    enough = (
        replace(step, soft=_FIRST_UNUSED, hard=max(step.hard, _FIRST_UNUSED)) if step in few else step
        for step in credentials
    )
    return tuple(enough) if few else credentials, few


def seccomp_step(config: Config) -> s.Step | None:
    """The configuration's filter, compiled."""
    if config.linux.seccomp is None:
        return None
    compiled = compile_filter(config.linux.seccomp)
    what = f"default {config.linux.seccomp.default_action}, {len(config.linux.seccomp.syscalls)} rules"
    return s.SeccompFilter(compiled.program, compiled.flags, what)


def _service_variables(choices: Choices) -> list[str]:
    """What sd_listen_fds(3) and sd_notify(3) look for, as runc names it."""
    found = [f"LISTEN_FDS={choices.listen_fds}", "LISTEN_PID=1"] if choices.listen_fds else []
    return [*found, f"NOTIFY_SOCKET={_NOTIFY}/notify.sock"] if choices.notify else found


def _mounts(
    config: Config, found: Hierarchies, bundle: str, choices: Choices, maps: MountMaps
) -> tuple[list[s.Step], list[s.Step]]:
    """The mounts and devices: what the launcher does for them before it clones, and what is done in the root."""
    kinds, linux = _kinds(config), config.linux
    of_host, of_root = propagations(linux.rootfs_propagation)
    own_dev = not any(inside(mount.destination) == DEV and is_bind(mount) for mount in config.mounts)
    devices = every_device(linux.devices) if own_dev else []  # what is bound is the host's, and stays as it is
    outside: list[s.Step] = []
    if "user" not in kinds and not choices.mapped:
        nodes = node_steps(devices)
    elif choices.mapped or choices.host_nodes:
        nodes = host_node_steps(devices)
    else:
        outside, nodes = outside_node_steps(devices, linux) if devices else ([], [])
    no_sysfs = kinds.get("user") == "" and kinds.get("network") != ""
    steps: list[s.Step] = []
    notify = [Mount(_NOTIFY, "bind", choices.notify, _NOTIFY_OPTIONS)] if choices.notify else []
    for mount in (*config.mounts, *notify) if "mount" in kinds else ():  # else they would be made on the host
        shown = shown_sysfs(mount) if no_sysfs and mount.type == "sysfs" else mount
        steps += mount_steps(shown, found, choices.cgroup, bundle, maps)
        if inside(mount.destination) == ".":
            steps += [s.Chdir(choices.rootfs), HOLD_ROOT]  # what is mounted on the root is the root from here on
    steps += [*nodes, *(link_steps() if own_dev else ())]
    held: list[s.Step] = []
    first = FIRST_HELD + sum(isinstance(step, s.HoldTree) for step in outside)
    if choices.rootless:  # an ordinary user can copy no mount out here
        pass
    elif "user" in kinds:  # as when the kernel copies the whole tree into one, the host's mounts are out of its reach
        held, steps = held_first(steps, first, lambda _: True, of_host & ~k.MS_REC)
    elif of_root & k.MS_SHARED:
        held, steps = held_first(steps, first, is_shared, 0)
    return [*outside, *held], steps


def bundle_plan(config: Config, found: Hierarchies, bundle: str, choices: Choices) -> s.Plan:
    """The plan that creates the container: it stops at Sync steps, and at AwaitStart until it is started.

    Raises UsageError naming what this host or this runtime cannot do.
    """
    process = config.process
    if process is None:
        raise UsageError("config.json: process: missing, and there is nothing else to start")
    process = replace(process, env=(*process.env, *_service_variables(choices)))
    kinds = _kinds(config)
    later = ("time", "cgroup") if choices.cgroup else ("time",)
    flags = sum(flag for kind, flag in NAMESPACE_FLAGS.items() if kinds.get(kind) == "" and kind not in later)
    maps = MountMaps(config.linux)
    outside, mounts = _mounts(config, found, bundle, choices, maps)
    size = process.console_size
    terminal = s.Terminal(process.user.uid, size.height if size else 0, size.width if size else 0)
    hooks = config.hooks
    created: tuple[s.Step, ...] = ()
    if hooks.prestart or hooks.create_runtime or hooks.create_container:
        created = (s.Sync(CREATED, "the mounts are made; hooks run before the root is entered"),)
    starting: tuple[s.Step, ...] = () if choices.at_once else (s.AwaitStart(),)
    if hooks.start_container:
        starting += (s.Sync(STARTING, "it is being started; hooks run inside"),)
    child: list[s.Step] = [
        *_cgroup_steps(config, found, choices),
        *_namespace_steps(config, choices),
        *_root_steps(config, choices),
        *mounts,
        *((terminal,) if process.terminal else (s.Setsid(tolerate=(EPERM,)), s.OwnStreams(process.user.uid))),
        *(s.ReadonlyPath(path) for path in config.linux.readonly_paths),
        *(s.MaskPath(path) for path in config.linux.masked_paths),
        *created,
        *_enter_steps(config, process, choices),
        *_personality(config),
        *_memory_policy(config),
        *process_end(
            process,
            preserve_fds=choices.preserve_fds,
            keep_groups=keeps_groups(config, choices.rootless),
            grantable=choices.grantable,
            seccomp=seccomp_step(config),
            wait=starting,
        ),
    ]
    return s.Plan(tuple(child), (*maps.steps.values(), *outside, *_parent_steps(config, found, choices)), flags)


def _personality(config: Config) -> list[s.Step]:
    if config.linux.personality is None:
        return []
    return [s.Personality({"LINUX": 0, "LINUX32": 8}[config.linux.personality.domain])]


def join_container(pid: int, kinds: Collection[str]) -> tuple[s.Step, ...]:
    """Enter those of a process's namespaces, and its root directory where they do not bring one. All are opened first:
    from within its user namespace, a process that is still being made, or that hides, may not be looked at."""
    own = [kind for kind in NAMESPACE_FLAGS if kind in kinds]
    opens = [s.Open(f"/proc/{pid}/ns/{NAMESPACE_FILES[kind]}", _NAMESPACES + n) for n, kind in enumerate(own)]
    joins = [s.JoinNamespace(f"/proc/self/fd/{_NAMESPACES + n}", NAMESPACE_FLAGS[kind]) for n, kind in enumerate(own)]
    if "mount" in kinds:  # whose root its own is
        return (*opens, *joins)
    root = s.Open(f"/proc/{pid}/root", _OWN_ROOT, os.O_PATH | os.O_DIRECTORY)
    return (root, *opens, *joins, s.Chroot(f"/proc/self/fd/{_OWN_ROOT}"))


def keeps_groups(config: Config, rootless: bool) -> bool:
    """Whether the groups stay as they are: in a user namespace of an ordinary user's there are no others, and crun's
    annotation asks for it (crun.1)."""
    return rootless or "run.oci.keep_original_groups" in config.annotations


def _memory_policy(config: Config) -> list[s.Step]:
    """The policy by which memory is taken from nodes: set_mempolicy(2) is the calling thread's, and outlives execve."""
    policy = config.linux.memory_policy
    if policy is None:
        return []
    place = "config.json: linux.memoryPolicy"
    for field, name, names in (
        ("mode", policy.mode, k.MEMORY_POLICIES),
        *(("flags", flag, k.MEMORY_POLICY_FLAGS) for flag in policy.flags),
    ):
        if name not in names:
            raise UsageError(f"{place}.{field}: {short(name)!r}", f"one of {', '.join(names)}")
    mode = k.MEMORY_POLICIES[policy.mode] | sum(k.MEMORY_POLICY_FLAGS[flag] for flag in set(policy.flags))
    nodes = _listed(policy.nodes, _MOST_NODES, f"{place}.nodes") if policy.nodes else ()
    return [s.MemoryPolicy(mode, nodes)]


def exec_plan(
    process: Process,
    config: Config,
    found: Hierarchies,
    pid: int,
    cgroup: str,
    preserve_fds: int,
    keep_groups: bool,
    grantable: int = k.ALL_CAPABILITIES,
    below: Mapping[Path, str] = MappingProxyType({}),
) -> s.Plan:
    """The plan that starts ``process`` in the namespaces of the container's first process ``pid``, in ``cgroup``, or in
    hierarchies that ``below`` has in another."""
    kinds = _kinds(config)
    joining, joined = join_in_two(found, cgroup, below) if cgroup or below else ((), ())
    parent: list[s.Step] = [*label_steps(process), s.Undumpable(), *joining]
    if process.oom_score_adj is not None:
        parent.insert(0, s.Write("/proc/self/oom_score_adj", (str(process.oom_score_adj),)))
    affinity = process.exec_cpu_affinity
    if affinity and affinity.initial:
        parent.insert(0, s.Affinity(processors(affinity.initial)))
    if joining and not (affinity and (affinity.initial or affinity.final)):
        parent.append(s.Affinity())
    parent += join_container(pid, kinds)
    size = process.console_size
    child: list[s.Step] = [
        *joined,
        *((s.SetUser(0, 0, keep_groups=keep_groups),) if "user" in kinds else ()),
        s.Undumpable(),
        s.Chdir("/"),
        HOLD_ROOT,
    ]
    if process.terminal:
        rows, columns = (size.height, size.width) if size else (0, 0)
        child.append(s.Terminal(process.user.uid, rows, columns, console=False))
    else:
        child += [s.Setsid(tolerate=(EPERM,)), s.OwnStreams(process.user.uid)]
    if affinity and affinity.final:
        child.append(s.Affinity(processors(affinity.final)))
    child += directory_steps(process)
    child += _memory_policy(config)
    child += process_end(
        process,
        preserve_fds=preserve_fds,
        keep_groups=keep_groups,
        grantable=grantable,
        seccomp=seccomp_step(config),
        wait=(),
    )
    return s.Plan(tuple(child), tuple(parent), 0)


def processors(text: str) -> tuple[int, ...]:
    """The processors of a list. Raises UsageError."""
    return _listed(text, _MOST_PROCESSORS, "config.json: process.execCPUAffinity")


def _listed(text: str, most: int, place: str) -> tuple[int, ...]:
    """The numbers of a list such as ``0-3,7`` (cpuset(7), "List format"). Raises UsageError."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not is_number(first) or dash and not is_number(last) or not int(first) <= int(last or first) < most:
            raise UsageError(f"{place}: {short(text)!r} is not a list of numbers below {most}")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))
