"""Why a plan holds its steps: one sentence for each purpose that steps serve.

``explain`` prints a purpose once above the steps that share it, so that a plan reads as an argument and not as a
list. A purpose follows from the step alone: its type, and where it acts.
"""

from __future__ import annotations

import re
from functools import cache
from os import O_PATH
from posixpath import basename

from runtime.plan import constants
from runtime.plan import steps as s

_CONTROL_FILE = re.compile(r"(memory|cpu|cpuacct|cpuset|pids|blkio|io|devices|hugetlb|cgroup)\.")

CLONE_PURPOSE = "A process that starts in namespaces of its own: it sees no other process, mount or name of the host."
_ACCOUNT = "A cgroup: the kernel charges and limits what is below it together."
_JOIN = "Enter the cgroup before anything is used, so that all of it is charged."
_NAMESPACE = "A namespace of its own: what the kernel names by number or path is looked up here from now on."
_NETWORK = "A network of its own: its interfaces, addresses, routes and ports are seen by nobody else."
_PRIVATE = "Mounts from here on stay in this mount namespace and do not show on the host."
_PROPAGATION = "What is mounted below its own root from here on passes to others, or not, as its configuration says."
_ROOT = "The root file system: the image's layers, read-only, under a writable one; a copy is made of what changes."
_KERNEL = "The kernel's own file systems, showing this container's processes and namespaces."
_DEV = "A /dev of its own with the few devices that every program expects and none that reaches the host."
_PIVOT = "The new root becomes /, and the host's tree is let go: no path leads back to it."
_IDENTITY = "Its name, and the names of its neighbours."
_PROTECT = "Parts of /proc and /sys that belong to the whole kernel: read-only, or hidden."
_DESCRIPTORS = "No descriptor of the caller's gets inside: one to a host directory would be a way out."
_SESSION = "The process's own surroundings: session, limits, directory, file mode mask."
_PRIVILEGE = "Root's power is cut down to a list, for this process and for all that it will ever execute."
_USER = "From here on as this user."
_GUEST = "A kernel has just booted: bring up what a host's kernel has up already."
_EXEC = "The workload takes the process over; nothing of the launcher remains."
_SECCOMP = "The system calls that it never needs are taken away: fewer doors into the kernel."
_SYNC = "A point of the container's life at which others act: maps of ids, hooks, the word to start."
_HANDED = "What the launcher has made meanwhile changes hands."
_HIDDEN = "While it is being made, no process inside may look at it: it still holds what is the host's."
_BESIDE = "A process beside the plan's own, from here to the end of its steps."
_TOGETHER = "The services belong together: when one ends, all do."
_AFRESH = "What copies of one saved guest must not share: the time is now, and no two draw the same random numbers."
_SERVE = "A guest that is saved asleep here is told, once a copy of it is restored, who it is now."
_TELL = "Nobody outside can see what a guest's memory holds: it tells whoever asks on its console."
_RECORD = "What is known of a container outlives the command that made it, and one command at a time changes it."
_LAUNCH = "The container's process is started, signalled and waited for by its caller's own process."
_PHASE = "Tell whoever times the start how far it has come."


def _of_path(path: str) -> str:
    """The purpose of making, mounting or writing ``path``."""
    name, inside = basename(path), path.lstrip("/")
    if name in ("tasks", "cgroup.procs"):
        return _JOIN
    if _CONTROL_FILE.match(name) or "cgroup" in inside.split("/"):
        return _ACCOUNT
    first = inside.split("/")[0]
    if first == "etc" or inside in ("dev/resolv.conf", "dev/hosts"):
        return _IDENTITY
    return {"dev": _DEV, "proc": _KERNEL, "sys": _KERNEL}.get(first, _ROOT)


@cache
def _of_type() -> dict[type[s.Step], str]:
    return {
        s.PivotRoot: _PIVOT,
        s.Chroot: _PIVOT,
        s.Unmount: _PIVOT,
        s.Symlink: _DEV,
        s.Mknod: _DEV,
        s.SetHostname: _IDENTITY,
        s.SetRlimit: _SESSION,
        s.Setsid: _SESSION,
        s.Umask: _SESSION,
        s.BoundingSet: _PRIVILEGE,
        s.Capabilities: _PRIVILEGE,
        s.NoNewPrivileges: _PRIVILEGE,
        s.SetUser: _USER,
        s.CloseOnExec: _DESCRIPTORS,
        s.DeathSignal: _SESSION,
        s.NetlinkSocket: _NETWORK,
        s.Netlink: _NETWORK,
        s.LoadModule: _GUEST,
        s.WaitPath: _GUEST,
        s.Message: _PHASE,
        s.Answer: _TELL,
        s.HoldTree: _ROOT,
        s.NewUserNamespace: _ROOT,
        s.MountAttributes: _ROOT,
        s.WriteDescriptor: _JOIN,
        s.JoinNamespace: _NAMESPACE,
        s.Ambient: _PRIVILEGE,
        s.KeepCapabilities: _PRIVILEGE,
        s.SetScheduler: _SESSION,
        s.Affinity: _SESSION,
        s.IOPriority: _SESSION,
        s.MemoryPolicy: _SESSION,
        s.Personality: _SESSION,
        s.SessionKeyring: _SESSION,
        s.SetDomainname: _IDENTITY,
        s.SeccompFilter: _SECCOMP,
        s.Terminal: _SESSION,
        s.Sync: _SYNC,
        s.NewTree: _KERNEL,
        s.HandOver: _HANDED,
        s.TakeOver: _HANDED,
        s.Announce: _HANDED,
        s.AwaitAnnounced: _HANDED,
        s.AwaitStart: _SYNC,
        s.LookUp: _SESSION,
        s.Home: _SESSION,
        s.DeviceFilter: _ACCOUNT,
        s.Undumpable: _HIDDEN,
        s.OwnStreams: _SESSION,
        s.MaskPath: _PROTECT,
        s.ReadonlyPath: _PROTECT,
        s.Fork: _BESIDE,
        s.AwaitEnd: _TOGETHER,
        s.Serve: _SERVE,
        s.SetClock: _AFRESH,
        s.AddEntropy: _AFRESH,
        s.Lock: _RECORD,
        s.Replace: _RECORD,
        s.Remove: _RECORD,
        s.Listen: _SYNC,
        s.Spawn: _LAUNCH,
        s.Reap: _LAUNCH,
        s.Close: _RECORD,
        s.SignalProcess: _LAUNCH,
        s.HoldSignals: _LAUNCH,
        s.Accompany: _LAUNCH,
        s.Admission: _SYNC,
        s.Exec: _EXEC,
    }


def reason(step: s.Step) -> str:
    """Why ``step`` is in a plan, as one sentence; never empty."""
    match step:
        case s.Mount() if not step.fstype and step.target == "/":
            if step.flags & (constants.MS_PRIVATE | constants.MS_SLAVE) and step.flags & constants.MS_REC:
                return _PRIVATE
            return _PIVOT if step.source else _PROPAGATION
        case s.Mount() if step.fstype == "devtmpfs":
            return _GUEST
        case s.Mount() | s.Bind():
            return _of_path(step.target)
        case s.Mkdir() | s.Write():
            return _of_path(step.path)
        case s.Open() if basename(step.path) in ("tasks", "cgroup.procs"):
            return _JOIN
        case s.Open():
            if "/ns/" in step.path:
                return _NETWORK if step.path.endswith("ns/net") else _NAMESPACE
            return _ROOT if step.flags & O_PATH else _SESSION
        case s.Unshare():
            return _NETWORK if step.flags == constants.CLONE_NEWNET else _NAMESPACE
        case s.Chdir():
            return _SESSION if step.path == "/" else _ROOT
        case _:
            return _of_type()[type(step)]
