"""A guest that is a host of containers, as a plan: what its PID 1 does before it becomes the supervisor.

The guest has one disk, in which every layer is a directory: the host's own, of which it makes its root, and the
images' that its containers mount. The guest's network card is a port of a bridge, so each container has its own
address on the lab's bridge, as it has without a guest around it. cgroup v2 is where a host has it, and all
controllers go to whoever runs there: ``runtime.supervisor``.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EINVAL

from msgspec import Struct

from runtime import network
from runtime.config.default import DEFAULT_PATH
from runtime.config.types import Mount as OciMount
from runtime.plan.constants import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID
from runtime.plan.network import OWN_SOCKET, loopback_steps
from runtime.plan.process import search_path
from runtime.plan.steps import (
    Chdir,
    CloseOnExec,
    Exec,
    Mkdir,
    Mount,
    Netlink,
    Plan,
    SetHostname,
    Step,
    Umask,
    Write,
)
from vm_images.plans.guest import (
    DISK,
    LOWER,
    MOVE_IN,
    NO_INPUT,
    ROOT,
    boot_steps,
    console_steps,
    overlay_steps,
    root_steps,
    share_steps,
)

# Where a container host has the layers, each under its name on the disk.
LAYERS = "/layers"
# What the supervisor is to do, as text; it is in memory.
DESCRIPTION = "/run/supervisor.json"
# Where the server of commands finds the machine's port; the containers have other roots.
DEVICES = "/run/devices"
# Where the FIFOs are by which the supervisor hears that a held container may begin.
HELD = "/run/held"
BRIDGE = "br0"
BRIDGE_INDEX = 100
# All that a v2 hierarchy can pass on; a kernel without one of them goes without.
CONTROLLERS = ("cpu", "memory", "pids", "io", "cpuset")

_ENVIRONMENT = (f"PATH={DEFAULT_PATH}", "LC_ALL=C.UTF-8")


class ContainerHost(Struct, frozen=True):
    """One guest: its ``layers`` by their names on the disk, bottom first; ``args`` is what PID 1 becomes, in ``cwd``.

    ``mac`` is the bridge's, which no other interface of the lab may have; None: the guest has no network card.
    ``description`` is for the program and will be at DESCRIPTION. With ``commands`` it has a
    port, for the server that the program starts. Containers that are ``held`` begin with a word each through the
    console, in that order. ``mounts`` are those of its containers.
    """

    layers: tuple[str, ...]
    args: tuple[str, ...]
    cwd: str
    hostname: str
    mac: str | None
    description: str
    commands: bool = False
    held: tuple[str, ...] = ()
    mounts: tuple[OciMount, ...] = ()


def _network_steps(mac: str | None) -> tuple[Step, ...]:
    """Return steps for a bridge, and on it the network card, which has no address of its own."""
    steps: list[Step] = [*loopback_steps()]
    if mac is not None:
        bridge = network.create_bridge(BRIDGE, mac, BRIDGE_INDEX)
        port = network.make_port("eth0", BRIDGE_INDEX)
        steps += [
            Netlink(OWN_SOCKET, bridge, f"create bridge {BRIDGE}"),
            Netlink(OWN_SOCKET, port, f"eth0 is a port of {BRIDGE}"),
        ]
    return tuple(steps)


def cgroup_steps() -> tuple[Step, ...]:
    """Return steps that mount cgroup v2 in the root that the working directory is, and pass on all controllers."""
    directory = "sys/fs/cgroup"
    return (
        Mount("cgroup2", directory, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, inside=True),
        *(
            Write(f"{directory}/cgroup.subtree_control", (f"+{name}",), inside=True, tolerate=(EINVAL,))
            for name in CONTROLLERS
        ),
    )


def _port_steps() -> tuple[Step, ...]:
    """Return steps that show the machine's devices in the root, beside its own /dev, which has none of them."""
    directory = DEVICES.lstrip("/")
    return (
        Mkdir(directory, inside=True),
        Mount("devtmpfs", directory, "devtmpfs", MS_NOSUID | MS_NOEXEC, inside=True),
    )


def container_host_plan(host: ContainerHost, modules: Sequence[str]) -> Plan:
    """Return the plan of the guest; ``modules`` are the files to load, in order, by their paths in the initial RAM
    disk."""
    return Plan(
        child=(
            *boot_steps(modules, _network_steps(host.mac), reports_memory=False),
            *overlay_steps(DISK, layers=host.layers),
            Mkdir(f"{ROOT}{LAYERS}"),
            Mount(LOWER, f"{ROOT}{LAYERS}", "", MS_BIND),
            *share_steps(host.mounts, ROOT),
            *root_steps(),
            *cgroup_steps(),
            *(_port_steps() if host.commands else ()),
            *MOVE_IN,
            SetHostname(host.hostname),
            Write(DESCRIPTION.lstrip("/"), (host.description,), create=True, inside=True),
            NO_INPUT,
            *console_steps(host.held, HELD),
            CloseOnExec(),
            Chdir(host.cwd),
            Umask(0o022),
            Exec(host.args, _ENVIRONMENT, search_path(_ENVIRONMENT)),
        )
    )
