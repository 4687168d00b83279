"""The plans of peers: from a process of ours to the peer's program, and inside what a peer has made to the workload."""

from __future__ import annotations

from errno import EINVAL, ENOENT, EPERM

from runtime.cgroups import Hierarchies
from runtime.plan.cgroup import clone_into, join_in_two
from runtime.plan.constants import CLONE_NEWNET, CLONE_NEWNS, MNT_DETACH, MS_PRIVATE, MS_REC, RLIMITS
from runtime.plan.execution import process_end, seccomp_step
from runtime.plan.mounts import FIRST_HELD
from runtime.plan.network import Attachment, Connection, hold_steps, namespace_steps, outside_steps
from runtime.plan.process import environment, home_steps, search_path
from runtime.plan.root import HOLD_ROOT, hiding_steps, identity_files, written_files
from runtime.plan.sharing import find_lender, lend_steps, lent_step
from runtime.plan.steps import (
    Affinity,
    Bind,
    Chdir,
    CloseOnExec,
    Exec,
    JoinNamespace,
    Mount,
    Plan,
    RequestAdmission,
    SetHostname,
    SetRlimit,
    Setsid,
    SetUser,
    Step,
    Sync,
    Umask,
    Unmount,
)
from runtime.unionfs.overlay import mount_steps, volatile_steps
from testbed.platforms.peers.peer import Peer, Place
from testbed.platforms.peers.program import Found

# The point at which the root is mounted, and can be watched.
MOUNTED = 1
# Where our launcher and its plan are, inside; unmounted before the workload runs, an empty directory stays.
ENTRY = "/.testbed"
LAUNCHER, ENTRY_PLAN, ADMISSION = "launcher", "plan", "admission"


def program_plan(peer: Peer, place: Place, found: Found, attachment: Attachment) -> Plan:
    """Return the plan of the process that becomes the peer's program: it makes the namespaces, fills the network one
    and mounts the root, waits until that is watched, and enters the cgroup in which the program belongs."""
    spec = place.spec
    connection = Connection(spec.link, attachment) if spec.link is not None else None
    network, lender = dict(spec.shared).get("network"), find_lender(spec)
    volatile, writable = volatile_steps(str(place.folder / "volatile"))
    into = clone_into(place.hierarchies, place.ground)
    joining, joined = ((), ()) if into else join_in_two(place.hierarchies, place.ground)
    parent = (
        *outside_steps(connection),
        *peer.limiting_steps(place),
        *joining,
        Affinity(),
        *(lend_steps(lender, FIRST_HELD) if lender else ()),
        *((JoinNamespace(network, CLONE_NEWNET),) if network else ()),
    )
    child = (
        *joined,
        *(hold_steps() if connection else ()),
        *(namespace_steps(connection) if network is None else ()),
        Mount("", "/", "", MS_REC | MS_PRIVATE),
        *((Chdir(str(place.folder)), HOLD_ROOT, lent_step(FIRST_HELD, place.lent.name)) if place.lent else ()),
        *volatile,
        *mount_steps(spec.layers, writable, str(place.root)),
        Chdir(str(place.root)),
        HOLD_ROOT,
        *written_files(identity_files(spec.hostname, spec.hosts, spec.resolver)),
        *peer.root_steps(place),
        Chdir("/"),
        Sync(MOUNTED, "the root is mounted, and is to be watched"),
        CloseOnExec(),
        *peer.last_steps(place, found),
    )
    return Plan(child, parent, CLONE_NEWNS | (CLONE_NEWNET if network is None else 0), into)


def hide_second_version(hierarchies: Hierarchies) -> tuple[Step, ...]:
    """Hide cgroup v2 where v1 has the controllers, as crun refuses a host with some of each."""
    if not hierarchies.v1 or hierarchies.unified is None:
        return ()
    return (Unmount(str(hierarchies.unified), MNT_DETACH, tolerate=(EINVAL, ENOENT)),)


def share_host_steps() -> tuple[Step, ...]:
    """Show the host's own /proc, /dev and /sys in the root."""
    return tuple(Bind(f"/{name}", name, recursive=True) for name in ("proc", "dev", "sys"))


def bind_entry(place: Place) -> Step:
    """Show the entry's folder in the root."""
    return Bind(str(place.entry), ENTRY[1:])


def bare_steps(place: Place) -> tuple[Step, ...]:
    """Return the last steps, in the workload's root, of one that nothing confines but its limits and its user."""
    process = place.config.process
    assert process is not None
    user, (home, env) = process.user, home_steps(process)
    return (
        Setsid(tolerate=(EPERM,)),
        Chdir("/"),
        HOLD_ROOT,
        *(SetRlimit(RLIMITS.index(limit.type), limit.soft, limit.hard) for limit in process.rlimits),
        Chdir(process.cwd),
        *home,
        SetUser(user.uid, user.gid, user.additional_gids),
        Umask(0o022 if user.umask is None else user.umask),
        Exec(process.args, environment(env), search_path(env), at_home=bool(home)),
    )


def bare_entry_plan(place: Place) -> Plan:
    """Return the plan from inside a root without walls to the workload."""
    return Plan((Unmount(ENTRY, MNT_DETACH), *bare_steps(place)))


def entry_plan(place: Place, *, asks: bool) -> Plan:
    """Return the plan from inside the namespaces that a peer has made to the workload: whatever else confines a
    container of ours. It ``asks`` to be moved to the workload's cgroup where the peer has no words for that."""
    spec, process = place.spec, place.config.process
    assert process is not None
    return Plan(
        (
            *((RequestAdmission(f"{ENTRY}/{ADMISSION}"),) if asks else ()),
            Unmount(ENTRY, MNT_DETACH),
            Unmount("/sys/fs/cgroup", MNT_DETACH, tolerate=(EINVAL, ENOENT)),
            Chdir("/"),
            HOLD_ROOT,
            *hiding_steps(spec.readonly_paths, spec.masked_paths),
            SetHostname(spec.hostname),
            Setsid(tolerate=(EPERM,)),
            *process_end(process, seccomp=seccomp_step(place.config), check=False),
        )
    )
