"""An OCI bundle as a plan: its configuration's namespaces, mounts, devices, limits and process (runtime-spec 1.2)."""

from __future__ import annotations

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
from runtime.config.process import Process
from runtime.config.types import Config, Mount
from runtime.errors import UsageError
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.mounts import MountMaps, device_steps, held_first, inside, mount_steps
from runtime.plan.process import credential_steps, home_steps, label_steps, search_path
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
_SOCKET, _NAMESPACES, _FIRST_UNUSED = 110, 112, 128
_NOTIFY, _NOTIFY_OPTIONS = "/run/notify", ("bind", "ro", "nosuid", "nodev", "noexec")


class Choices(Struct, frozen=True):
    """What the command line adds: ``rootfs`` absolute, the cgroup's name (empty: none), and the flags of create.

    ``at_once``: the process is executed without waiting for anybody; only a container with nothing to do in between
    can be started so. ``scope``: the unit of systemd's that the cgroup is, which only the interpreter deals with.
    ``mapped``: we are in a user namespace already, as under a rootless engine, whose root may not make nodes.
    ``listen_fds``: the first of the preserved descriptors, which are sockets for it; ``notify``: the directory of the
    socket at which it says that it is ready.
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
    listen_fds: int = 0
    notify: str = ""


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
    steps += [s.JoinNamespace(kinds[kind], flag) for kind, flag in NAMESPACE_FLAGS.items() if kinds.get(kind)]
    if kinds.get("time") == "":
        steps.append(s.Unshare(k.CLONE_NEWTIME))
        offsets = tuple(f"{name} {o.secs} {o.nanosecs}" for name, o in config.linux.time_offsets.items())
        if offsets:
            steps.append(s.Write("/proc/self/timens_offsets", offsets))
    return steps


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
    process: Process, *, preserve_fds: int, keep_groups: bool, seccomp: s.Step | None, wait: tuple[s.Step, ...]
) -> list[s.Step]:
    """From the finished root to execve. ``wait`` stands where everything else that can fail has been done.

    Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before the privileges go; with it, last.
    """
    parts = [part for part in inside(process.cwd).split("/") if part != "."]
    directories = [
        s.Mkdir("/".join(parts[:depth]), tolerate=(EEXIST, EROFS, ENOENT, EPERM), inside=True)
        for depth in range(1, len(parts) + 1)
    ]
    credentials = credential_steps(process, keep_groups=keep_groups)
    home, env = home_steps(process)
    look = s.LookUp(process.args[0], search_path(process.env))
    filters = (seccomp,) if seccomp else ()
    if process.no_new_privileges:
        credentials, few = _descriptors_last(credentials)
        end: tuple[s.Step, ...] = (*credentials, s.NoNewPrivileges(), look, *wait, *few, *filters)
    else:
        end = (look, *wait, *filters, *credentials)
    return [
        *directories,
        s.CloseOnExec(3 + preserve_fds),
        s.Chdir(process.cwd, confined=True),
        *home,
        *end,
        s.Exec(process.args, env, search_path(env), at_home=bool(home)),
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
    wanted = [*config.mounts, *([Mount(_NOTIFY, "bind", choices.notify, _NOTIFY_OPTIONS)] if choices.notify else [])]
    mounts = [step for m in wanted for step in mount_steps(m, found, choices.cgroup, bundle, maps)]
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
        *_cgroup_steps(config, found, choices),
        *_namespace_steps(config, choices),
        *_root_steps(config, choices),
        *mounts,
        *((terminal,) if process.terminal else (s.Setsid(tolerate=(EPERM,)), s.OwnStreams(process.user.uid))),
        *(s.ReadonlyPath(path) for path in config.linux.readonly_paths),
        *(s.MaskPath(path) for path in config.linux.masked_paths),
        *created,
        *_enter_steps(config, choices),
        *_personality(config),
        *process_end(
            process,
            preserve_fds=choices.preserve_fds,
            keep_groups=keeps_groups(config, choices.rootless),
            seccomp=seccomp_step(config),
            wait=starting,
        ),
    ]
    return s.Plan(tuple(child), (*maps.steps.values(), *held, *_parent_steps(config, found, choices)), flags)


def _personality(config: Config) -> list[s.Step]:
    if config.linux.personality is None:
        return []
    return [s.Personality({"LINUX": 0, "LINUX32": 8}[config.linux.personality.domain])]


def join_namespaces(pid: int, kinds: Collection[str]) -> tuple[s.Step, ...]:
    """Enter those of a process's namespaces. All are opened first: from within its user namespace, a process that is
    still being made, or that hides, may not be looked at."""
    own = [kind for kind in NAMESPACE_FLAGS if kind in kinds]
    opens = (s.Open(f"/proc/{pid}/ns/{NAMESPACE_FILES[kind]}", _NAMESPACES + n) for n, kind in enumerate(own))
    joins = (s.JoinNamespace(f"/proc/self/fd/{_NAMESPACES + n}", NAMESPACE_FLAGS[kind]) for n, kind in enumerate(own))
    return (*opens, *joins)


def keeps_groups(config: Config, rootless: bool) -> bool:
    """Whether the groups stay as they are: in a user namespace of an ordinary user's there are no others, and crun's
    annotation asks for it (crun.1)."""
    return rootless or "run.oci.keep_original_groups" in config.annotations


def exec_plan(
    process: Process,
    config: Config,
    found: Hierarchies,
    pid: int,
    cgroup: str,
    preserve_fds: int,
    keep_groups: bool,
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
    parent += join_namespaces(pid, kinds)
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
    child += process_end(
        process, preserve_fds=preserve_fds, keep_groups=keep_groups, seccomp=seccomp_step(config), wait=()
    )
    return s.Plan(tuple(child), tuple(parent), 0)


def processors(text: str) -> tuple[int, ...]:
    """The numbers of a list such as ``0-3,7`` (cpuset(7), "List format"). Raises UsageError."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or dash and not last.isdigit() or int(last or first) > 8191:
            raise UsageError(f"config.json: process.execCPUAffinity: {text!r} is not a list of processors")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))
