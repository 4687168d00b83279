"""Plan a workload's container: its configuration, a root made of layers and, if it has a link, a veth pair."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config.types import Mount
from runtime.errors import UsageError
from runtime.plan.bundle import Choices, bundle_plan
from runtime.plan.network import Attachment, Connection
from runtime.plan.root import ImageRoot, identity_files
from runtime.plan.sharing import find_lender
from runtime.plan.steps import Plan
from runtime.spec import Spec, configuration
from runtime.unionfs.overlay import WritableLayer


class Building(Struct, frozen=True):
    """Holds what a container that makes a layer of an image has besides its ``Spec``.

    The changes go to ``writable``, on disk. ``files`` are pairs of a name below /etc and the text that the container
    reads there; they do not become part of the image. The container ends with the thread that started it. With
    ``connected``, its parent is told once its network namespace exists, and the command is executed when the parent
    allows it. ``mounts`` come after those of every workload; they may be of anything but what ``mount_point`` covers, a
    directory for the root ("" covers that of the layers).
    """

    writable: WritableLayer
    files: tuple[tuple[str, str], ...] = ()
    connected: bool = False
    mounts: tuple[Mount, ...] = ()
    mount_point: str = ""


def workload_plan(
    spec: Spec,
    hierarchies: Hierarchies,
    cgroup: str,
    *,
    attachment: Attachment | None = None,
    building: Building | None = None,
    writable: WritableLayer | None = None,
    pooled: bool = False,
) -> Plan:
    """Return the plan that makes the cgroup ``cgroup`` and starts ``spec`` in it; with ``building``, it makes a layer.
    Its changes go to ``writable``, on disk, or else to memory. With ``pooled``, it waits for its parent's word before
    the last step, which executes the command.

    Raises UsageError for a spec with a link and no ``attachment``, and as ``bundle_plan`` does.
    """
    connection = None
    if spec.link is not None:
        if attachment is None:
            raise UsageError(f"container {cgroup}: {spec.link.address} needs a bridge to be attached to")
        connection = Connection(spec.link, attachment)
    config = configuration(spec)
    lender = find_lender(spec)
    choices = Choices("", cgroup, start_immediately=True, makes_cgroup=True, pooled=pooled, lender=lender)
    image = ImageRoot(spec.layers, identity_files(spec.hostname, spec.hosts, spec.resolver), writable)
    if building is not None:
        choices = replace(choices, keyring="build", ends_with_parent=True, waits_connected=building.connected)
        image = ImageRoot(spec.layers, building.files, building.writable, mount_point=building.mount_point)
        config = replace(config, mounts=(*config.mounts, *building.mounts))
    return bundle_plan(config, hierarchies, "", choices, image=image, connection=connection)
