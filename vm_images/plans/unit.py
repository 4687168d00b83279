"""A service of a full system as a plan: what is between systemd's fork and the workload in a stock guest.

The system has booted, and has brought devices and network up; from there the steps are the container's and the
guest's own. It is a service, not a container: a mount namespace gives it its root, and it shares all else with the
system. The limits of memory and tasks are its unit's; RAM and processors are the virtual machine's.
"""

from __future__ import annotations

from runtime.plan.constants import CLONE_NEWNS, MNT_DETACH, MS_PRIVATE, MS_REC
from runtime.plan.steps import Chdir, Mount, PivotRoot, Plan, Unmount, Unshare
from runtime.spec import Spec
from vm_images.plans.guest import overlay_steps, root_steps, workload_steps

# The serial number of the disk with the layers, and the link that udev makes of it (60-persistent-storage.rules): a
# system with several disks promises no order.
SERIAL = "layers"
DISK = f"/dev/disk/by-id/virtio-{SERIAL}"
# What the unit says to the console, followed by the status, when the workload has ended.
EXITED = "testbed: exit status "
# A directory that every system has. What is mounted on it is seen in the service's mount namespace only.
_PREFIX = "/mnt"


def unit_plan(spec: Spec) -> Plan:
    """Return the plan of the unit that runs ``spec`` in a stock guest from a disk with the spec's layers.

    Raises UsageError for an empty command or an unknown capability or limit.
    """
    return Plan(
        child=(
            Unshare(CLONE_NEWNS),
            Mount("", "/", "", MS_REC | MS_PRIVATE),
            Mount("tmpfs", _PREFIX, "tmpfs", 0, "mode=0755"),
            *overlay_steps(DISK, prefix=_PREFIX),
            *root_steps(_PREFIX, mounts=spec.all_mounts),
            PivotRoot(".", "."),
            Unmount(".", MNT_DETACH),
            Chdir("/"),
            *workload_steps(spec),
        )
    )
