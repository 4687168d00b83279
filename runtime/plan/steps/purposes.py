"""Define the purposes that steps serve, with one sentence for each.

``explain`` prints each once above the steps that share it, so that a plan reads as an argument and not as a list.
"""

from posixpath import basename

_CONTROLLERS = ("memory.", "cpu.", "cpuacct.", "cpuset.", "pids.", "blkio.", "io.", "devices.", "hugetlb.", "cgroup.")

CLONE = "A process that starts in namespaces of its own: it sees no other process, mount or name of the host."
ACCOUNT = "A cgroup: the kernel charges and limits what is below it together."
JOIN = "Enter the cgroup before anything is used, so that all of it is charged."
NAMESPACE = "A namespace of its own: what the kernel names by number or path is looked up here from now on."
NETWORK = "A network of its own: its interfaces, addresses, routes and ports are seen by nobody else."
PRIVATE = "Mounts from here on stay in this mount namespace and do not show on the host."
PROPAGATION = "What is mounted below its own root from here on passes to others, or not, as its configuration says."
ROOT = "The root file system: the image's layers, read-only, under a writable one; a copy is made of what changes."
KERNEL = "The kernel's own file systems, showing this container's processes and namespaces."
DEV = "A /dev of its own with the few devices that every program expects and none that reaches the host."
PIVOT = "The new root becomes /, and the host's tree is let go: no path leads back to it."
CHROOT = "Path names that begin with / begin here from now on. What is above still exists, unless it is let go, too."
IDENTITY = "Its name, and the names of its neighbours."
PROTECT = "Parts of /proc and /sys that belong to the whole kernel: read-only, or hidden."
DESCRIPTORS = "No descriptor of the caller's gets inside: one to a host directory would be a way out."
SESSION = "The process's own surroundings: session, limits, directory, file mode mask."
PRIVILEGE = "Root's power is cut down to a list, for this process and for all that it will ever execute."
USER = "From here on as this user."
GUEST = "A kernel has just booted: bring up what a host's kernel has up already."
EXEC = "The workload takes the process over; nothing of the launcher remains."
SECCOMP = "The system calls that it never needs are taken away: fewer doors into the kernel."
LANDLOCK = "Rules of its own, on top of permissions: what nobody may take back, not even root inside."
SYNC = "A point of the container's life at which others act: maps of ids, hooks, the word to start."
HIDDEN = "While it is being made, no process inside may look at it: it still holds what is the host's."
BESIDE = "A process beside the plan's own, from here to the end of its steps."
TOGETHER = "The services belong together: when one ends, all do."
AFRESH = "What copies of one saved guest must not share: the time is now, and no two draw the same random numbers."
SERVE = "A guest that is saved asleep here is told, once a copy of it is restored, who it is now."
TELL = "Nobody outside can see what a guest's memory holds: it tells whoever asks on its console."
COMMANDS = "Nobody outside can start a program in a guest: a process beside the workload does it for whoever may ask."
RECORD = "What is known of a container outlives the command that made it, and one command at a time changes it."
LAUNCH = "The container's process is started, signalled and waited for by its caller's own process."
PHASE = "Tell whoever times the start how far it has come."


def of_path(path: str) -> str:
    """Return the purpose of making, mounting or writing ``path``."""
    name, inside = basename(path), path.lstrip("/")
    if name in ("tasks", "cgroup.procs"):
        return JOIN
    if name.startswith(_CONTROLLERS) or "cgroup" in inside.split("/"):
        return ACCOUNT
    first = inside.split("/")[0]
    if first == "etc" or inside in ("dev/resolv.conf", "dev/hosts"):
        return IDENTITY
    return {"dev": DEV, "proc": KERNEL, "sys": KERNEL}.get(first, ROOT)
