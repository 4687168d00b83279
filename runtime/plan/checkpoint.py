"""Plan a container that CRIU can save, and the restoring of a copy of it into a cgroup, network and root of its own.

CRIU (criu.org) saves processes, with their namespaces and the mounts inside, and makes them again. Left to us are the
cgroup, the network namespace and the root's mount: each copy gets new ones. A copy's root has what the saved container
had written as its uppermost layer, below a layer of its own in memory.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from runtime.cgroups import Hierarchies
from runtime.config.resources import Resources
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.bundle import Choices, bundle_plan
from runtime.plan.network import Attachment, Connection
from runtime.plan.provision import provide
from runtime.plan.root import MEMORY, ImageRoot, identity_files, image_root_steps, written_files
from runtime.spec import Spec, configuration
from runtime.unionfs.overlay import WritableLayer

# By what the saved state calls the network namespace, which is not saved.
NETWORK = "lab"
# What CRIU inherits: its standard input is the network namespace, its output the copy's, this one the copy's input.
INPUT_FD = 3
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Saved(Struct, frozen=True):
    """A saved container: the directory of CRIU's ``images``, what it had written (``upper``), and the names of its
    standard input and output, pipes of ours, by which a copy gets others."""

    images: str
    upper: str
    stdin: str
    stdout: str


def _connection(spec: Spec, attachment: Attachment | None) -> Connection | None:
    return Connection(spec.link, attachment) if spec.link is not None and attachment is not None else None


def original_plan(
    spec: Spec, hierarchies: Hierarchies, cgroup: str, attachment: Attachment | None, writable: WritableLayer
) -> s.Plan:
    """Return the plan of a container that is to be saved: it is started as any other, but what it writes goes to
    ``writable``, on disk, and each tmpfs is a mount of its own."""
    image = ImageRoot(spec.layers, identity_files(spec.hostname, spec.hosts, spec.resolver), writable, temporary=True)
    choices = Choices("", cgroup, start_immediately=True, makes_cgroup=True)
    connection = _connection(spec, attachment)
    return bundle_plan(configuration(spec), hierarchies, "", choices, image=image, connection=connection)


def dump_command(criu: str, pid: int, network: int, images: str, *, skips_lock: bool) -> tuple[str, ...]:
    """Return the command that saves the container of the first process ``pid`` and ends it; ``network`` is the inode of
    its network namespace. With ``skips_lock`` CRIU does not lock the network, where there are no connections;
    one that cannot do without uses nftables, for which it needs no program."""
    return (
        *(criu, "dump", "--tree", str(pid), "--images-dir", images, "--work-dir", images, "--log-file", "dump.log"),
        *("--external", f"net[{network}]:{NETWORK}", "--manage-cgroups=ignore", "--file-locks"),
        *("--network-lock", "skip" if skips_lock else "nftables"),
    )


def restore_command(criu: str, saved: Saved, work: str) -> tuple[str, ...]:
    """Return the command that makes a copy, a child of CRIU's own parent; ``work`` takes its log and the copy's pid."""
    inherited: Mapping[int, str] = {0: NETWORK, INPUT_FD: saved.stdin, 1: saved.stdout, 2: saved.stdout}
    return (
        *(criu, "restore", "--images-dir", saved.images, "--work-dir", work, "--log-file", "restore.log"),
        *("--root", f"{MEMORY}/root", "--manage-cgroups=ignore", "--file-locks"),
        *(word for fd, name in inherited.items() for word in ("--inherit-fd", f"fd[{fd}]:{name}")),
        *("--restore-detached", "--restore-sibling", "--pidfile", f"{work}/pid"),
    )


def restore_plan(
    spec: Spec,
    hierarchies: Hierarchies,
    cgroup: str,
    attachment: Attachment | None,
    saved: Saved,
    criu: str,
    work: str,
) -> s.Plan:
    """Return the plan that makes the cgroup, a network namespace and a root for a copy, and executes CRIU there.

    CRIU works in the copy's cgroup, so that what it takes is charged to it. ``work`` and ``saved.images`` may not be
    below /tmp, which the root covers.
    """
    config = configuration(spec)
    connection = _connection(spec, attachment)
    limits = config.linux.resources or Resources()
    provision = provide(config, hierarchies, cgroup, limits, connection, make=True)
    image = ImageRoot((*spec.layers, saved.upper))
    child: tuple[s.Step, ...] = (
        *provision.first,
        *provision.networking,
        s.Mount("", "/", "", k.MS_REC | k.MS_PRIVATE),
        *image_root_steps(image),
        *written_files(identity_files(spec.hostname, spec.hosts, spec.resolver)),
        s.Chdir("/"),
        s.Open("/proc/thread-self/ns/net", 0),
        s.CloseOnExec(INPUT_FD + 1),
        s.Exec(restore_command(criu, saved, work), (_PATH,), ""),
    )
    return s.Plan(child, provision.parent, k.CLONE_NEWNS | provision.flags, provision.into_cgroup)
