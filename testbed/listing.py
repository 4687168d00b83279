"""What can be measured here: the scenarios that there are, and the platforms with whether each can run on this host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from runtime.checkpoint import find_criu
from runtime.errors import TestbedError
from runtime.files import read_bounded
from runtime.home import store_root
from runtime.output import shortened
from testbed.host.facts import read_first_line, read_libvirt_version
from testbed.platforms.hypervisors import HYPERVISORS
from testbed.platforms.needs import Host, look_at_host
from testbed.platforms.paravirtual import PARAVIRTUAL
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.platform import probe
from testbed.platforms.registry import NAMES, require_platform
from testbed.platforms.rungs.names import RUNGS
from testbed.platforms.virtualbox import VIRTUALBOX
from testbed.qemu.variants import VARIANTS
from testbed.rungs.read import find_rung
from testbed.scenario.model import COMPOSE_FILES, load
from testbed.scenario.model import list_scenarios as list_names
from testbed.virtualbox.installation import find_virtualbox

# A compose file is read to here for what it says of itself.
_HEAD_BYTES = 1 << 20

# Of why a platform is not here, so many characters are shown.
_SHOWN = 200

# What each platform is, in a line.
DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "container": "our own runtime: namespaces, cgroups, an overlay of the layers",
        "container-pooled": "the same, waiting in a pool with all of its plan done but the exec",
        "container-restored": "copies of a container that CRIU saved after its warm-up",
        "libvirt-lxc": "libvirt's own containers, by a libvirtd of the run's own",
        "vm": "a machine for each service: q35, the distribution's kernel, our launcher as PID 1",
        "vm-pooled": "vm, booted before, waiting with all of its guest's plan done but the exec",
        "vm-restored": "copies of a machine that was saved after its warm-up",
        "vm-micro": "vm on microvm, QEMU's smallest machine",
        "vm-pod": "all services of a copy in one machine",
        "vm-cloud": "a stock Debian with GRUB, systemd and cloud-init",
        "vm-disk": "vm with a disk of its own instead of a writable layer in memory",
        "vm-minimal": "vm with a kernel built for it",
        "vm-balloon": "vm whose memory a balloon takes back",
        "vm-reporting": "vm that reports its free pages",
        "vm-ksm": "vm whose equal pages KSM merges",
        "vm-hugepages": "vm with memory of huge pages",
        "vm-containers": "one machine a copy, in which our runtime runs the services",
        "vm-tuned": "vm with pinned processors that knows the host's topology",
        "emulated-1988": "vm translated one instruction at a time by one thread, as SoftPC ran a PC",
        "hardware-2006": "vm on virtualisation in hardware, or not at all",
        "paravirtual-2003": "guests of Xen's, paravirtual: where Xen has booted, as in the reference machine",
        "virtualbox": "guests of VirtualBox's, where that is installed, as in the reference machine",
        "process": "a process of the host, with the image's root mounted and no walls",
        "chroot": "the same behind chroot(2)",
        "bwrap": "bubblewrap: namespaces without privileges",
        "nspawn": "systemd-nspawn",
        "crun": "the OCI runtime crun",
        "runc": "the OCI runtime runc",
        "youki": "the OCI runtime youki",
        "podman": "podman, with conmon",
        "lxc": "LXC",
        "runsc": "gVisor: a kernel in a process",
        "kata": "Kata Containers: a machine for each container",
        "docker": "docker, by its daemon and containerd",
        **{name: f"{one.title}: known, and no platform" for name, one in HYPERVISORS.items()},
    }
)


class ListedScenario(Struct, frozen=True):
    """A scenario: what its file says of itself, its services, and what is measured; ``problem`` is why it cannot be."""

    name: str
    description: str
    services: tuple[str, ...] = ()
    start: str = ""
    density: str = ""
    utilisation: str = ""
    problem: str = ""


class ListedPlatform(Struct, frozen=True):
    """A platform: what it is, whether it can run on this host, what of (its ``version``) or why not, and the fix."""

    name: str
    description: str
    available: bool
    detail: str
    fix: str = ""


def list_scenarios(folder: Path) -> tuple[ListedScenario, ...]:
    """Return the scenarios in a folder; one that is malformed is listed with its first problem."""
    return tuple(_describe_scenario(name, folder) for name in list_names(folder))


def _describe_scenario(name: str, folder: Path) -> ListedScenario:
    description = _read_description(folder / name)
    try:
        scenario = load(name, folder)
    except TestbedError as error:
        return ListedScenario(name, description, problem=error.message.splitlines()[0])
    settings = scenario.settings
    ready, load_of, density, slo = settings.ready, settings.load, settings.density, settings.slo
    rates = ", ".join(f"{rate:g}" for rate in load_of.rates_per_s)
    return ListedScenario(
        scenario.name,
        description,
        tuple(service.name for service in scenario.services),
        f"until {ready.service} answers {ready.path}",
        f"up to {density.cap} copies at {density.rate_per_s:g}/s each, p99 within {slo.p99_ms:g} ms",
        f"{rates} requests/s for {load_of.duration_s:g} s",
    )


def _read_description(folder: Path) -> str:
    """Return the first sentence of the comment that a compose file begins with; "" without one."""
    file = next((folder / name for name in COMPOSE_FILES if os.path.isfile(folder / name)), None)
    try:
        text = read_bounded(file, _HEAD_BYTES).decode(errors="replace") if file else ""
    except TestbedError:
        return ""
    first = text.partition("\n")[0]
    if not first.startswith("#"):
        return ""
    return first.lstrip("# ").removeprefix(f"{folder.name}: ").strip()


def list_platforms() -> tuple[ListedPlatform, ...]:
    """Look at this host, without starting anything, and return every platform that there is, and every hypervisor that
    is known and is none."""
    host = look_at_host(store_root())
    return tuple(_look(name, host) for name in (*NAMES, *HYPERVISORS))


def _look(name: str, host: Host) -> ListedPlatform:
    description = f"a rung of the ladder: {find_rung(name).title}" if name in RUNGS else DESCRIPTIONS.get(name, "")
    try:
        require_platform(name, host)
        detail = _find_version(name)
    except TestbedError as error:
        return ListedPlatform(name, description, False, shortened(error.message.splitlines()[0], _SHOWN), error.hint)
    if os.geteuid() != 0:
        return ListedPlatform(name, description, False, "needs root", "run it with sudo")
    return ListedPlatform(name, description, True, detail)


def _find_version(name: str) -> str:
    """Return the version of what starts a platform that is here. Raises PrerequisiteError for what is not."""
    if name in PEERS:
        return f"{PEERS[name].title} {probe(PEERS[name]).version}".strip()
    if name in VARIANTS:
        line = read_first_line("qemu-system-x86_64", "--version") or "QEMU"
        return line.replace("QEMU emulator version", "QEMU").partition(" (")[0]
    if name == "container-restored":
        return f"CRIU {find_criu().version}"
    if name == "libvirt-lxc":
        return f"libvirt {read_libvirt_version()}"
    if name == PARAVIRTUAL:
        return "Xen"
    if name == VIRTUALBOX:
        return f"VirtualBox {find_virtualbox().version}"
    if name == "docker":
        return read_first_line("docker", "--version") or "docker"
    return "this checkout"
