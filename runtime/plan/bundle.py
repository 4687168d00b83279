"""An OCI bundle as a plan: its configuration's namespaces, mounts, devices, limits and process (runtime-spec 1.3)."""

from __future__ import annotations

from errno import EEXIST, ENOENT, EPERM, EROFS

from msgspec import Struct
from msgspec.structs import replace

from runtime import network
from runtime.cgroups import Hierarchies, join_steps
from runtime.cgroups.resources import limit_steps
from runtime.config import mount_options
from runtime.config.decode import is_number, short
from runtime.config.process import Process
from runtime.config.types import Config
from runtime.errors import UsageError
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.mounts import MountMaps, device_steps, held_first, inside, mount_steps
from runtime.plan.process import credential_steps, environment, label_steps, search_path
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
_SOCKET = 110
_MOST_PROCESSORS, _MOST_NODES = 8192, 1024  # NR_CPUS, MAX_NUMNODES at their largest


class Choices(Struct, frozen=True):
    """What the command line adds: ``rootfs`` absolute, the cgroup's name (empty: none), and the flags of create.

    ``at_once``: the process is executed without waiting for anybody; only a container with nothing to do in between
    can be started so. ``scope``: the unit of systemd's that the cgroup is, which only the interpreter deals with.
    ``mapped``: we are in a user namespace already, as under a rootless engine, whose root may not make nodes.
    ``grantable``: the capabilities, as a mask, that we have to give.
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


def _kinds(config: Config) -> dict[str, str]:
    return {namespace.type: namespace.path for namespace in config.linux.namespaces}


def _parent_steps(config: Config, found: Hierarchies, choices: Choices) -> list[s.Step]:
    steps: list[s.Step] = []
    kinds = _kinds(config)
    if choices.cgroup:
        if config.linux.resources is not None:
            limits = config.linux.resources
            if choices.rootless or choices.mapped:  # no node that it could make would work in its user namespace
                limits = replace(limits, devices=())
            steps += limit_steps(found, choices.cgroup, limits)
        steps += join_steps(found, choices.cgroup)
    if config.process is not None and config.process.oom_score_adj is not None:
        steps.append(s.Write("/proc/self/oom_score_adj", (str(config.process.oom_score_adj),)))
    steps += [s.JoinNamespace(kinds[kind], flag) for kind, flag in NAMESPACE_FLAGS.items() if kinds.get(kind)]
    if kinds.get("time") == "":
        steps.append(s.Unshare(k.CLONE_NEWTIME))
        offsets = tuple(f"{name} {o.secs} {o.nanosecs}" for name, o in config.linux.time_offsets.items())
        if offsets:
            steps.append(s.Write("/proc/self/timens_offsets", offsets))
    return steps


def _namespace_steps(config: Config, choices: Choices) -> list[s.Step]:
    kinds = _kinds(config)
    recorded = s.Sync(RECORDED, "the process is there; its maps of ids and its record are to be written")
    steps: list[s.Step] = [] if choices.at_once else [recorded]
    if config.process is not None:
        steps += label_steps(config.process)
    if "user" in kinds:
        steps.append(s.SetUser(0, 0, keep_groups=choices.rootless))
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


def _propagation(name: str) -> int:
    kind = mount_options.PROPAGATION[name.removeprefix("r") if name not in mount_options.PROPAGATION else name]
    return kind | (k.MS_REC if name not in mount_options.PROPAGATION else 0)


def _root_steps(config: Config, choices: Choices) -> list[s.Step]:
    shared = config.linux.rootfs_propagation
    root = choices.rootfs
    return [
        s.Mount("", "/", "", _propagation(shared) if shared else k.MS_REC | k.MS_SLAVE),
        s.Mount(root, root, "", k.MS_BIND | k.MS_REC),
        s.Mount("", root, "", k.MS_PRIVATE),  # what pivot_root asks of the new root and of where it lies
        s.Chdir(root),
        HOLD_ROOT,
    ]


def _enter_steps(config: Config, choices: Choices) -> list[s.Step]:
    if choices.pivot:
        enter: list[s.Step] = [s.PivotRoot(".", "."), s.Unmount(".", k.MNT_DETACH), s.Chdir("/")]
    else:
        enter = [s.Mount(".", "/", "", k.MS_MOVE), s.Chroot("."), s.Chdir("/")]
    if config.root.readonly:
        enter.append(s.MountAttributes("/", k.MOUNT_ATTR_RDONLY))
    return enter


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
    parts = [part for part in inside(process.cwd).split("/") if part != "."]
    directories = [
        s.Mkdir("/".join(parts[:depth]), tolerate=(EEXIST, EROFS, ENOENT, EPERM), inside=True)
        for depth in range(1, len(parts) + 1)
    ]
    credentials = credential_steps(process, keep_groups=keep_groups, grantable=grantable)
    look = s.LookUp(process.args[0], search_path(process.env))
    filters = (seccomp,) if seccomp else ()
    if process.no_new_privileges:
        end: tuple[s.Step, ...] = (*credentials, s.NoNewPrivileges(), look, *wait, *filters)
    else:
        end = (look, *wait, *filters, *credentials)
    return [
        *directories,
        s.CloseOnExec(3 + preserve_fds),
        s.Chdir(process.cwd, confined=True),
        *end,
        s.Exec(process.args, environment(process.env), search_path(process.env)),
    ]


def seccomp_step(config: Config) -> s.Step | None:
    """The configuration's filter, compiled."""
    if config.linux.seccomp is None:
        return None
    compiled = compile_filter(config.linux.seccomp)
    what = f"default {config.linux.seccomp.default_action}, {len(config.linux.seccomp.syscalls)} rules"
    return s.SeccompFilter(compiled.program, compiled.flags, what)


def bundle_plan(config: Config, found: Hierarchies, bundle: str, choices: Choices) -> s.Plan:
    """The plan that creates the container: it stops at Sync steps, and at AwaitStart until it is started.

    Raises UsageError naming what this host or this runtime cannot do.
    """
    process = config.process
    if process is None:
        raise UsageError("config.json: process: missing, and there is nothing else to start")
    kinds = _kinds(config)
    flags = sum(flag for kind, flag in NAMESPACE_FLAGS.items() if kinds.get(kind) == "" and kind != "time")
    maps = MountMaps(config.linux)
    mounts = [step for m in config.mounts for step in mount_steps(m, found, choices.cgroup, bundle, maps)]
    mounts += device_steps(
        config.linux.devices, bind="user" in kinds or choices.mapped
    )  # a user namespace's root may not make nodes
    held: list[s.Step] = []
    if "user" in kinds and not choices.rootless:  # an ordinary user can copy no mount out here
        held, mounts = held_first(mounts)
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
        *_namespace_steps(config, choices),
        *_root_steps(config, choices),
        *mounts,
        *((terminal,) if process.terminal else (s.Setsid(tolerate=(EPERM,)), s.OwnStreams(process.user.uid))),
        *(s.ReadonlyPath(path) for path in config.linux.readonly_paths),
        *(s.MaskPath(path) for path in config.linux.masked_paths),
        *created,
        *_enter_steps(config, choices),
        *_personality(config),
        *_memory_policy(config),
        *process_end(
            process,
            preserve_fds=choices.preserve_fds,
            keep_groups=choices.rootless,
            grantable=choices.grantable,
            seccomp=seccomp_step(config),
            wait=starting,
        ),
    ]
    return s.Plan(tuple(child), (*maps.steps.values(), *held, *_parent_steps(config, found, choices)), flags)


def _personality(config: Config) -> list[s.Step]:
    if config.linux.personality is None:
        return []
    return [s.Personality({"LINUX": 0, "LINUX32": 8}[config.linux.personality.domain])]


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
) -> s.Plan:
    """The plan that starts ``process`` in the namespaces of the container's first process ``pid``."""
    kinds = _kinds(config)
    parent: list[s.Step] = [*label_steps(process), s.Undumpable(), *(join_steps(found, cgroup) if cgroup else ())]
    if process.oom_score_adj is not None:
        parent.insert(0, s.Write("/proc/self/oom_score_adj", (str(process.oom_score_adj),)))
    affinity = process.exec_cpu_affinity
    if affinity and affinity.initial:
        parent.insert(0, s.Affinity(processors(affinity.initial)))
    for kind, flag in NAMESPACE_FLAGS.items():
        if kind in kinds:
            parent.append(s.JoinNamespace(f"/proc/{pid}/ns/{NAMESPACE_FILES[kind]}", flag))
    size = process.console_size
    child: list[s.Step] = [
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
