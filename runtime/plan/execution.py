"""Turn a configuration's process into the steps from the finished root to execve, on either platform, and plan further
processes of a container (runtime-spec 1.3, Process)."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from errno import EEXIST, ENOENT, EPERM, EROFS
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config.decode import is_number, short
from runtime.config.process import Process
from runtime.config.types import Config
from runtime.errors import UsageError
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.cgroup import join_in_two
from runtime.plan.mounts import inside
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
_OWN_ROOT, _NAMESPACES, _FIRST_UNUSED = 111, 112, 128
_MOST_PROCESSORS, _MOST_NODES = 8192, 1024  # NR_CPUS, MAX_NUMNODES at their largest


def kinds_of(config: Config) -> dict[str, str]:
    """Map each type of namespace that the container has to its path, which is empty for a new one."""
    return {namespace.type: namespace.path for namespace in config.linux.namespaces}


def keeps_groups(config: Config, rootless: bool) -> bool:
    """Return whether the groups stay as they are: an unprivileged user's namespace has no others, and crun's
    annotation asks for it (crun.1)."""
    return rootless or "run.oci.keep_original_groups" in config.annotations


def directory_steps(process: Process) -> list[s.Step]:
    """Make the missing parts of the working directory, as far as they can be made."""
    parts = [part for part in inside(process.cwd).split("/") if part != "."]
    return [
        s.Mkdir("/".join(parts[:depth]), tolerate=(EEXIST, EROFS, ENOENT, EPERM), inside=True)
        for depth in range(1, len(parts) + 1)
    ]


@lru_cache(maxsize=64)
def process_end(
    process: Process,
    *,
    preserve_fds: int = 0,
    keep_groups: bool = False,
    grantable: int = k.ALL_CAPABILITIES,
    seccomp: s.Step | None = None,
    landlock: s.Step | None = None,
    wait: tuple[s.Step, ...] = (),
    last: tuple[s.Step, ...] = (),
    hold: tuple[s.Step, ...] = (),
    check: bool = True,
) -> tuple[s.Step, ...]:
    """Return the steps from the finished root to execve. The ``wait`` steps come once everything else that can fail has
    been done, the ``last`` steps once the process has its final user, and the ``hold`` steps when nothing but execve is
    left, so that the seccomp filter has to allow them. With ``check`` a missing command fails before ``wait``.

    The kernel accepts a seccomp filter, or Landlock's rules, only from a process that has CAP_SYS_ADMIN or has set
    no_new_privs (seccomp(2), landlock(7)). Without no_new_privs they are therefore installed before the privileges are
    dropped; with it, last.
    """
    credentials = credential_steps(process, keep_groups=keep_groups, grantable=grantable)
    home, env = home_steps(process)
    look = (s.CheckExecutable(process.args[0], search_path(process.env)),) if check else ()
    filters = tuple(one for one in (landlock, seccomp) if one)
    if process.no_new_privileges:
        credentials, few = _descriptors_last(credentials)
        end: tuple[s.Step, ...] = (*credentials, s.NoNewPrivileges(), *look, *wait, *few, *last, *filters)
    else:
        end = (*look, *wait, *filters, *credentials, *last)
    return (
        s.CloseOnExec(3 + preserve_fds),
        s.Chdir(process.cwd, confined=True),
        *home,
        *end,
        *hold,
        s.Exec(process.args, environment(env), search_path(env), at_home=bool(home)),
    )


def _descriptors_last(credentials: tuple[s.Step, ...]) -> tuple[tuple[s.Step, ...], tuple[s.Step, ...]]:
    """Split off a limit on descriptors that is too low for those that the plan itself still uses. The steps get a
    sufficient limit instead; the low one is returned apart, to be set later, as lowering it takes no privilege."""
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
    """Compile the configuration's seccomp filter; return None when it has none."""
    if config.linux.seccomp is None:
        return None
    compiled = compile_filter(config.linux.seccomp)
    what = f"default {config.linux.seccomp.default_action}, {len(config.linux.seccomp.syscalls)} rules"
    return s.SeccompFilter(compiled.program, compiled.flags, what)


def memory_policy_steps(config: Config) -> list[s.Step]:
    """Set the NUMA memory policy. set_mempolicy(2) applies to the calling thread, and the policy outlives execve.
    Raises UsageError for an unknown mode or flag, or a bad list of nodes."""
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


def join_container(pid: int, kinds: Collection[str], *, chroot: bool = False) -> tuple[s.Step, ...]:
    """Enter a process's namespaces of these ``kinds``, and its root directory unless its mount namespace brings it,
    which it does not where the process was only put into its root by ``chroot``. All are opened first: from within its
    user namespace, a process that is still being made or is not dumpable may not be inspected. That of time is entered
    first: it was made before the user namespace, and only who is privileged where it was made may enter it."""
    own = [kind for kind in dict.fromkeys(("time", *NAMESPACE_FLAGS)) if kind in kinds]
    opens = [s.Open(f"/proc/{pid}/ns/{NAMESPACE_FILES[kind]}", _NAMESPACES + n) for n, kind in enumerate(own)]
    joins = [s.JoinNamespace(f"/proc/self/fd/{_NAMESPACES + n}", NAMESPACE_FLAGS[kind]) for n, kind in enumerate(own)]
    if "mount" in kinds and not chroot:  # joining a mount namespace sets the root to its root
        return (*opens, *joins)
    root = s.Open(f"/proc/{pid}/root", _OWN_ROOT, os.O_PATH | os.O_DIRECTORY)
    return (root, *opens, *joins, s.Chroot(f"/proc/self/fd/{_OWN_ROOT}"))


def exec_plan(
    process: Process,
    config: Config,
    hierarchies: Hierarchies,
    pid: int,
    cgroup: str,
    preserve_fds: int,
    keep_groups: bool,
    grantable: int = k.ALL_CAPABILITIES,
    below: Mapping[Path, str] = MappingProxyType({}),
    *,
    chroot: bool = False,
    landlock: s.Step | None = None,
) -> s.Plan:
    """Return the plan that starts ``process`` in the namespaces of the container's first process ``pid`` and in
    ``cgroup``. ``below`` names another cgroup for some hierarchies, by mount point. ``chroot`` and ``landlock`` are as
    the container was made with (``Choices``)."""
    kinds = kinds_of(config)
    joining, joined = join_in_two(hierarchies, cgroup, below) if cgroup or below else ((), ())
    parent: list[s.Step] = [*label_steps(process), s.SetNonDumpable(), *joining]
    if process.oom_score_adj is not None:
        parent.insert(0, s.Write("/proc/self/oom_score_adj", (str(process.oom_score_adj),)))
    affinity = process.exec_cpu_affinity
    if affinity and affinity.initial:
        parent.insert(0, s.Affinity(processors(affinity.initial)))
    if joining and not (affinity and (affinity.initial or affinity.final)):
        parent.append(s.Affinity())
    parent += join_container(pid, kinds, chroot=chroot)
    child = further_steps(
        process,
        config,
        first=(*joined, *((s.SetUser(0, 0, keep_groups=keep_groups),) if "user" in kinds else ())),
        preserve_fds=preserve_fds,
        keep_groups=keep_groups,
        grantable=grantable,
        landlock=landlock,
    )
    return s.Plan(child, tuple(parent), 0)


def further_steps(
    process: Process,
    config: Config,
    *,
    first: tuple[s.Step, ...] = (),
    preserve_fds: int = 0,
    keep_groups: bool = False,
    grantable: int = k.ALL_CAPABILITIES,
    landlock: s.Step | None = None,
) -> tuple[s.Step, ...]:
    """Return the steps of a further process of a container, from its root, and the ``first`` ones there, to execve."""
    size, affinity = process.console_size, process.exec_cpu_affinity
    child: list[s.Step] = [*first, s.SetNonDumpable(), s.Chdir("/"), HOLD_ROOT]
    if process.terminal:
        rows, columns = (size.height, size.width) if size else (0, 0)
        child.append(s.Terminal(process.user.uid, rows, columns, console=False))
    else:
        child += [s.Setsid(tolerate=(EPERM,)), s.ChownStdio(process.user.uid)]
    if affinity and affinity.final:
        child.append(s.Affinity(processors(affinity.final)))
    child += directory_steps(process)
    child += memory_policy_steps(config)
    child += process_end(
        process,
        preserve_fds=preserve_fds,
        keep_groups=keep_groups,
        grantable=grantable,
        seccomp=seccomp_step(config),
        landlock=landlock,
        wait=(),
    )
    return tuple(child)


def processors(text: str) -> tuple[int, ...]:
    """Return the processors that a list names. Raises UsageError for anything else."""
    return _listed(text, _MOST_PROCESSORS, "config.json: process.execCPUAffinity")


def _listed(text: str, most: int, place: str) -> tuple[int, ...]:
    """Return the numbers of a list such as ``0-3,7`` (cpuset(7), "List format"). Raises UsageError for a malformed list
    or a number that is not below ``most``."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not is_number(first) or (dash and not is_number(last)) or not int(first) <= int(last or first) < most:
            raise UsageError(f"{place}: {short(text)!r} is not a list of numbers below {most}")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))
